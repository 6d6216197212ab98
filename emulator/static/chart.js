// A bar for each job: its delay, and its execution on top.

const SVG = "http://www.w3.org/2000/svg";
const [HEIGHT, LEFT, TOP, BOTTOM] = [112, 48, 10, 4];
const SLOTS = 50;

// Draws the jobs, the oldest first, into the element.
export function draw(element, jobs) {
  const width = Math.max(element.clientWidth, 200);
  const longest = Math.max(...jobs.map(whole), 1);
  const svg = make("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" });
  svg.append(make("title", {}, `Delay and execution of ${jobs.length} jobs, ${seconds(longest)} at most`));
  const floor = HEIGHT - BOTTOM;
  const scale = (floor - TOP) / longest;
  for (const part of [0, 0.5, 1]) {
    const y = floor - part * longest * scale;
    svg.append(make("line", { class: "axis", x1: LEFT, x2: width, y1: y, y2: y }));
    const label = { x: LEFT - 5, y: y + 3, "text-anchor": "end" };
    svg.append(make("text", label, part ? seconds(part * longest) : "0"));
  }
  const step = (width - LEFT) / SLOTS;
  jobs.forEach((job, index) => {
    const x = LEFT + (SLOTS - jobs.length + index) * step;
    const [delay, execution] = [job.delayTime ?? 0, job.executionTime ?? 0];
    const bar = make("g", {});
    bar.append(make("title", {}, `${job.name}: delay ${seconds(delay)}, execution ${seconds(execution)}`));
    bar.append(rectangle("delay", x, floor - delay * scale, step, delay * scale));
    bar.append(rectangle("execution", x, floor - (delay + execution) * scale, step, execution * scale));
    svg.append(bar);
  });
  element.replaceChildren(svg);
}

export function seconds(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return "";
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return `${(milliseconds / 1000).toFixed(milliseconds < 10000 ? 2 : 1)} s`;
}

const whole = (job) => (job.delayTime ?? 0) + (job.executionTime ?? 0);

function rectangle(kind, x, y, step, height) {
  return make("rect", { class: kind, x: x + 0.5, y, width: step - 1.5, height: Math.max(height, 0) });
}

function make(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}
