// One job for each endpoint.

const blocking = (method, endpoint, payload) => ({ input: { api: { method, endpoint }, payload } });

export const EXAMPLES = [
  ["/generate, streamed", blocking("POST", "/generate", {
    prompt: "Once upon a time", max_new_tokens: 60, stream: true,
  })],
  ["/generate", blocking("POST", "/generate", {
    prompt: "The capital of France is", max_new_tokens: 20,
  })],
  ["/chat, streamed", blocking("POST", "/chat", {
    user_input: "What is the capital of France?", mode: "instruct", max_new_tokens: 60,
    history: { internal: [], visible: [] }, stream: true,
  })],
  ["/v1/chat/completions, streamed", blocking("POST", "/v1/chat/completions", {
    messages: [{ role: "user", content: "Name three colours." }], max_tokens: 60, stream: true,
  })],
  ["/v1/chat/completions", blocking("POST", "/v1/chat/completions", {
    messages: [{ role: "user", content: "Name three colours." }], max_tokens: 60,
  })],
  ["/v1/completions", blocking("POST", "/v1/completions", {
    prompt: "Roses are red,", max_tokens: 30,
  })],
  ["/v1/models", { input: { api: { method: "GET", endpoint: "/v1/models" } } }],
  ["/token-count", blocking("POST", "/token-count", { prompt: "How many tokens is this?" })],
  ["/model", { input: { api: { method: "GET", endpoint: "/model" } } }],
  ["/model: info", blocking("POST", "/model", { action: "info" })],
  ["/model: list", blocking("POST", "/model", { action: "list" })],
  ["/stop-stream", blocking("POST", "/stop-stream", {})],
];
