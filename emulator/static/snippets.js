// The same request as a command and as a program. A key is named and never shown.

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// base: http://host:port/v2/<endpoint id>.
export function curl(base, job, withKey) {
  const header = withKey ? ' \\\n  -H "Authorization: Bearer $RUNPOD_API_KEY"' : "";
  const data = quoted(JSON.stringify(job));
  const post = (operation) =>
    `curl -s ${base}/${operation}${header} \\\n  -H 'Content-Type: application/json' \\\n  -d ${data}`;
  if (!isStreamed(job)) return post("runsync");
  return `${post("run")}\n\n# then, until the status is final:\ncurl -s ${base}/stream/JOB_ID${header}`;
}

export function python(base, job, withKey) {
  const [url, id] = [base.slice(0, base.lastIndexOf("/")), base.slice(base.lastIndexOf("/") + 1)];
  const key = withKey ? 'os.environ["RUNPOD_API_KEY"]' : '"none"';
  const head = [
    ...(withKey ? ["import os", ""] : []),
    "import runpod",
    "",
    `runpod.endpoint_url_base = ${JSON.stringify(url)}`,
    `endpoint = runpod.Endpoint(${JSON.stringify(id)}, api_key=${key})`,
    `request = ${literal(job)}`,
  ];
  const tail = isStreamed(job)
    ? ["for chunk in endpoint.run(request).stream():", "    print(chunk)"]
    : ["print(endpoint.run_sync(request))"];
  return [...head, ...tail].join("\n");
}

export function isStreamed(job) {
  const body = job?.input?.payload ?? job?.input?.openai_input;
  return body?.stream === true;
}

// A JSON value as Python writes it.
function literal(value, indent = "") {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const deeper = `${indent}    `;
  const parts = Array.isArray(value)
    ? value.map((item) => literal(item, deeper))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, deeper)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const line = open + parts.join(", ") + close;
  if (indent.length + line.length < 56 && !line.includes("\n")) return line;
  return `${open}\n${parts.map((part) => `${deeper}${part},\n`).join("")}${indent}${close}`;
}
