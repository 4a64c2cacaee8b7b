// The name of this tab, kept over a reload, and the names of the other open tabs.

import { identifier } from "./api.js";

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
