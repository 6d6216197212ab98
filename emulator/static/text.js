// The text in what a job streams and in its output.

// Returns the text so far: `before` and what this chunk adds to it.
export function addChunk(before, chunk) {
  if (typeof chunk === "string") return before + textOfEvents(chunk);
  if (chunk?.history) return lastReply(chunk.history) ?? before;
  return typeof chunk?.text === "string" ? before + chunk.text : before;
}

// Returns the text of a whole output, null when it has none.
export function textOf(output) {
  const whole = Array.isArray(output) && output.length === 1 ? output[0] : output;
  const result = (whole?.results ?? whole?.choices)?.[0];
  if (typeof whole?.result === "string") return whole.result;
  if (result?.history) return lastReply(result.history);
  if (typeof result?.tokens === "number") return `${result.tokens} tokens`;
  return result?.text ?? result?.message?.content ?? null;
}

function lastReply(history) {
  return history.internal?.at(-1)?.[1] ?? null;
}

// Whole server-sent events of an OpenAI stream.
function textOfEvents(events) {
  return events.split("\n").map((line) => {
    if (!line.startsWith("data: {")) return "";
    const choice = JSON.parse(line.slice(6)).choices?.[0];
    return choice?.delta?.content ?? choice?.text ?? "";
  }).join("");
}
