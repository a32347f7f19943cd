// Follows the page while it is looked at, and copies commands. Without it everything can still be read and sent.
"use strict";
const content = document.getElementById("content");
const busy = () => content.querySelector("details[open], input:focus");
let source = null;
function follow() {
  if (document.hidden && source) {
    source.close();
    source = null;
  } else if (!document.hidden && !source) {
    source = new EventSource("/live?page=" + encodeURIComponent(content.dataset.live));
    source.onmessage = (event) => { if (!busy()) content.innerHTML = event.data; };
  }
}
if (content && content.dataset.live && window.EventSource) {
  document.addEventListener("visibilitychange", follow);
  window.addEventListener("pagehide", () => source && source.close());
  follow();
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button || !navigator.clipboard) return;
  navigator.clipboard.writeText(button.dataset.copy).then(() => { button.textContent = "Copied"; });
});
