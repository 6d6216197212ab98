"""The blocking API as data: parameters, presets, templates, characters, chats."""
