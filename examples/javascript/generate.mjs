// One answer: waits for the job and prints its text.

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

let job = await ask("runsync", {
  input: {
    api: { method: "POST", endpoint: "/generate" },
    payload: { prompt: "The capital of France is", max_new_tokens: 20 },
  },
});
// /runsync answers after 90 seconds at the latest, with a job that may still wait or run.
while (["IN_QUEUE", "IN_PROGRESS"].includes(job.status)) {
  await new Promise((done) => setTimeout(done, 1000));
  job = await ask(`status/${job.id}`);
}
if (job.status !== "COMPLETED") throw new Error(job.error ?? job.status);
console.log(job.output.results[0].text);
