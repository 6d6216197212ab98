// Shows what /overview answers. Rows stay the same elements, so that they keep the focus.

import { draw, seconds } from "./chart.js";

const byId = (id) => document.getElementById(id);
const rows = new Map();

// open: called with a job's id when it is chosen.
export function show(overview, open) {
  byId("endpoint").textContent = overview.endpoint;
  const { inQueue, inProgress, completed, failed } = overview.jobs;
  const counts = { "in queue": inQueue, running: inProgress, completed, failed };
  byId("counts").replaceChildren(...Object.entries(counts).map(([name, count]) =>
    item(strong(count), ` ${name}`)));
  byId("workers").replaceChildren(...(overview.workers.length
    ? overview.workers.map((worker) =>
      item(`${worker.id} `, state(worker.state), worker.jobs ? ` ${worker.jobs} job(s)` : ""))
    : [item("none: start one, or the emulator with --workers 1")]));
  byId("no-jobs").hidden = overview.recent.length > 0;
  showJobs(overview.recent, open);
  draw(byId("chart"), overview.recent.toReversed());
}

function showJobs(jobs, open) {
  const known = new Set(jobs.map((job) => job.id));
  for (const [id, row] of rows) {
    if (!known.has(id)) {
      row.remove();
      rows.delete(id);
    }
  }
  jobs.forEach((job, index) => {
    if (!rows.has(job.id)) rows.set(job.id, makeRow(job, open));
    const row = rows.get(job.id);
    update(row, job);
    const place = byId("jobs").children[index] ?? null;
    if (place !== row) byId("jobs").insertBefore(row, place);
  });
}

function makeRow(job, open) {
  const row = document.createElement("tr");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "link";
  button.textContent = job.id.replace("sync-", "").slice(0, 8);
  button.title = `Show job ${job.id}`;
  button.addEventListener("click", () => open(job.id));
  for (let column = 0; column < 5; column += 1) row.append(document.createElement("td"));
  row.children[0].append(button);
  row.children[1].textContent = job.name;
  return row;
}

function update(row, job) {
  row.children[2].textContent = job.status;
  row.children[2].className = `state ${job.status}`;
  row.children[3].textContent = seconds(job.delayTime);
  row.children[4].textContent = seconds(job.executionTime);
}

function item(...parts) {
  const element = document.createElement("li");
  element.append(...parts);
  return element;
}

function strong(text) {
  const element = document.createElement("b");
  element.textContent = text;
  return element;
}

function state(name) {
  const element = document.createElement("span");
  element.className = `state ${name}`;
  element.textContent = name;
  return element;
}
