// Requests to the server. An answer other than 2xx becomes a Failure.

export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status; // 0: the server was not reached
  }
}

let csrf = "";

export function setCsrf(token) {
  csrf = token;
}

async function request(path, options) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch {
    throw new Failure("the server is not reached", 0);
  }
  let body;
  try {
    body = await answer.json();
  } catch {
    body = {};
  }
  if (!answer.ok) throw new Failure(body.error ?? `the server answers ${answer.status}`, answer.status);
  return body;
}

export function get(path) {
  return request(path, {});
}

export function post(path, body, options = {}) {
  return request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Preceptor-Csrf": csrf },
    body: JSON.stringify(body),
    ...options,
  });
}

// An identifier of 128 random bits. crypto.randomUUID exists on https and localhost alone, and a
// laboratory's server is often neither.
export function identifier() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 15) | 64;
  bytes[8] = (bytes[8] & 63) | 128;
  const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
