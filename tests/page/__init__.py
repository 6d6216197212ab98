"""Tests of the emulator's page."""
