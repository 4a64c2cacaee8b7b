export function showLead(box) {
  box.hidden = false;
}
