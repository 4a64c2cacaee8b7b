// Whether the answer to an image fits its marks. One that does not is set aside until it does, here as
// on the server.

export function fits({ answer, marks, problem }) {
  if (problem) return true; // without the image, its marks are not known
  if (answer?.state === "marked") return !marks.isEmpty();
  return answer?.state !== "nothing" || marks.isEmpty();
}

// Whether the image has an answer that counts; a skip does not.
export function isDone(entry) {
  return Boolean(entry.answer) && entry.answer.state !== "skipped" && fits(entry);
}
