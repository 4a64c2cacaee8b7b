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
  // A proxy takes no change of this size: to send it again would hold up all others.
  if (answer.status === 413) throw new Failure("the change is too large", 413);
  const body = await answer.json().catch(() => null);
  // A proxy, or another program at this address: all answers of our server are JSON.
  if (body === null || (!answer.ok && body.error === undefined)) {
    throw new Failure("something else answers at this address", 0);
  }
  if (!answer.ok) throw new Failure(body.error, answer.status);
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

// The name of this tab, kept over a reload, and the names of the other open tabs.
const WAIT = 120; // milliseconds in which an open tab answers

export async function meetTabs() {
  let tab = sessionStorage.getItem("tab");
  const others = [];
  const channel = new BroadcastChannel("preceptor-label");
  const heard = new Promise((resolve) => setTimeout(resolve, WAIT));
  const call = identifier();
  channel.onmessage = ({ data }) => {
    if (data.kind === "who" && data.call !== call) channel.postMessage({ kind: "here", tab });
    if (data.kind === "here") others.push(data.tab);
  };
  channel.postMessage({ kind: "who", call });
  await heard;
  // A duplicated tab has the session storage of its original, and with it the same name.
  if (tab === null || others.includes(tab)) tab = identifier();
  sessionStorage.setItem("tab", tab);
  return { tab, others: others.filter((one) => one !== tab) };
}
