// The page's parts put together: the form, the job that is followed, the overview.

import { ask, hasKey, Refused, setKey } from "./api.js";
import { seconds } from "./chart.js";
import { EXAMPLES } from "./examples.js";
import { show } from "./overview.js";
import { curl, python } from "./snippets.js";
import { addChunk, textOf } from "./text.js";

const byId = (id) => document.getElementById(id);
const FINAL = ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"];
const POLL = 200;
const REFRESH = 1000;
const OWN = "a job of your own";
let endpoint = "local";
let followed = null;

const base = () => `/v2/${endpoint}`;
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// The job that the page follows, and its text so far.

async function submit() {
  const job = readJob();
  const times = byId("times");
  if (job === null || !times.reportValidity()) return;
  byId("job-problem").textContent = "";
  showCode(job);
  try {
    open((await ask(`${base()}/run`, job)).id);
    for (let left = times.valueAsNumber; left > 1; left -= 1) await ask(`${base()}/run`, job);
  } catch (error) {
    byId("job-problem").textContent = sentence(error);
  }
}

async function open(id) {
  const job = { id, text: "" };
  followed = job;
  showText("", false);
  byId("answer").textContent = "";
  try {
    await follow(job);
  } catch (error) {
    if (followed === job) showText(sentence(error), true);
  }
  if (followed === job) byId("cancel").disabled = true;
}

// Polls until the end of the job, or until the page follows another one.
async function follow(job) {
  let answer = await ask(`${base()}/status/${job.id}`);
  while (followed === job && !FINAL.includes(answer.status)) {
    showState(answer);
    const { stream } = await ask(`${base()}/stream/${job.id}`);
    for (const { output } of stream) job.text = addChunk(job.text, output);
    if (followed === job && stream.length) showText(job.text, false);
    if (!stream.length) await pause(POLL);
    answer = await ask(`${base()}/status/${job.id}`);
  }
  if (followed !== job) return;
  showState(answer);
  byId("answer").textContent = JSON.stringify(answer, null, 2);
  const text = textOf(answer.output) ?? JSON.stringify(answer.output ?? "", null, 2);
  if (answer.status === "COMPLETED") showText(text, false);
  else if (answer.error) showText(job.text ? `${job.text}\n\n${answer.error}` : answer.error, true);
  else if (!job.text) showText("It ended before a text came.", true);
}

async function cancel() {
  if (byId("cancel").disabled || followed === null) return;
  byId("cancel").disabled = true;
  try {
    await ask(`${base()}/cancel/${followed.id}`, {});
  } catch (error) {
    byId("job-problem").textContent = sentence(error);
  }
}

function showState(answer) {
  byId("state").textContent = answer.status;
  byId("state").className = `state ${answer.status}`;
  const times = [["delay", answer.delayTime], ["execution", answer.executionTime]];
  const parts = times.filter(([, time]) => time !== undefined).map(([name, time]) => `${name} ${seconds(time)}`);
  byId("meta").textContent = [answer.id, answer.workerId, ...parts].filter(Boolean).join(" · ");
  byId("cancel").disabled = FINAL.includes(answer.status);
}

function showText(text, isProblem) {
  const element = byId("text");
  const atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 20;
  element.textContent = text;
  element.classList.toggle("problem-text", isProblem);
  if (atEnd) element.scrollTop = element.scrollHeight;
}

// The form.

function readJob() {
  try {
    return JSON.parse(byId("job").value);
  } catch (error) {
    byId("job-problem").textContent = `This is not JSON: ${error.message}`;
    return null;
  }
}

function choose() {
  const [, job] = EXAMPLES.find(([name]) => name === byId("example").value) ?? [];
  if (!job) return;
  byId("job").value = JSON.stringify(job, null, 2);
  byId("job-problem").textContent = "";
  showCode(job);
}

// What the list of examples says once the job was edited; it can't be chosen.
function ownJob() {
  const option = new Option(OWN);
  option.hidden = true;
  return option;
}

function showCode(job) {
  byId("curl").textContent = curl(location.origin + base(), job, hasKey());
  byId("python").textContent = python(location.origin + base(), job, hasKey());
}

async function copy(button) {
  const source = byId(button.dataset.from);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    // No access to the clipboard: mark the text, for the keyboard's own copy.
    getSelection().selectAllChildren(source);
    button.textContent = "Marked";
  }
  await pause(1500);
  button.textContent = "Copy";
}

// The overview.

async function refresh() {
  try {
    const overview = await ask("/overview");
    const isOther = endpoint !== overview.endpoint;
    endpoint = overview.endpoint;
    show(overview, open);
    byId("connection").textContent = "";
    byId("key-form").hidden = true;
    if (isOther) choose();
  } catch (error) {
    const wantsKey = error instanceof Refused && error.status === 401;
    if (wantsKey && byId("key-form").hidden) {
      byId("key-form").hidden = false;
      byId("key").focus();
    }
    byId("connection").textContent = wantsKey ? "" : sentence(error);
  }
}

async function keepFresh() {
  while (true) {
    if (!document.hidden) await refresh();
    await pause(REFRESH);
  }
}

function sentence(error) {
  return error instanceof Refused ? error.message : "The emulator does not answer; is it running?";
}

function start() {
  byId("example").append(...EXAMPLES.map(([name]) => new Option(name)), ownJob());
  byId("example").addEventListener("change", choose);
  byId("job-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  byId("job").addEventListener("input", () => {
    byId("job-problem").textContent = "";
    byId("example").value = OWN;
  });
  byId("job").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
  });
  byId("cancel").addEventListener("click", cancel);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") cancel(); });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey(byId("key").value.trim());
    byId("key").value = "";
    refresh().then(choose);
  });
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", () => copy(button));
  }
  choose();
  keepFresh();
}

start();
