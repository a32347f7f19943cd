// Follows the page while it is looked at, and copies commands. Without it everything can still be read and sent.
"use strict";
const content = document.getElementById("content");
const busy = () => (content.contains(document.activeElement) && document.activeElement !== content)
  || content.querySelector("details[open]");
let source = null, newest = null;
function show() {
  if (newest !== null && !busy()) {
    content.innerHTML = newest;
    newest = null;
  }
}
function follow() {
  if (document.hidden && source) {
    source.close();
    source = null;
  } else if (!document.hidden && !source) {
    source = new EventSource("/live?page=" + encodeURIComponent(content.dataset.live));
    source.onmessage = (event) => { newest = event.data; show(); };
    source.onerror = () => {
      if (source && source.readyState === EventSource.CLOSED) {
        source = null;
        setTimeout(follow, 30000);  // refused: there are too many, or one has to log in
      }
    };
  }
}
if (content && content.dataset.live && window.EventSource) {
  document.addEventListener("visibilitychange", follow);
  window.addEventListener("pagehide", () => source && source.close());
  content.addEventListener("focusout", () => setTimeout(show, 0));
  content.addEventListener("toggle", show, true);
  follow();
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button || !navigator.clipboard) return;
  navigator.clipboard.writeText(button.dataset.copy).then(() => { button.textContent = "Copied"; });
});
