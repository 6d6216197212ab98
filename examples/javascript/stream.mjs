// A stream: prints the text as it is generated.

const {
  RUNPOD_URL: url = "http://127.0.0.1:8000/v2",
  RUNPOD_ENDPOINT_ID: id = "local",
  RUNPOD_API_KEY: key = "none",
} = process.env;
const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };

const ask = async (path, body) => {
  const options = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  const response = await fetch(`${url}/${id}/${path}`, options);
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return response.json();
};

const job = await ask("run", {
  input: {
    api: { method: "POST", endpoint: "/generate" },
    payload: { prompt: "Once upon a time", max_new_tokens: 100, stream: true },
  },
});
let running = true;
while (running) {
  const { status, stream } = await ask(`stream/${job.id}`);
  for (const { output } of stream) process.stdout.write(output.text ?? "");
  // The last chunks may come together with the final status: ask until nothing comes any more.
  running = stream.length > 0 || ["IN_QUEUE", "IN_PROGRESS"].includes(status);
  if (stream.length === 0 && running) await new Promise((done) => setTimeout(done, 200));
}
console.log();
const { status, error } = await ask(`status/${job.id}`);
if (status !== "COMPLETED") throw new Error(error ?? status);
