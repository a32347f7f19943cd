// Follows the page, and copies commands. Without it everything can still be read and sent.
"use strict";
const content = document.getElementById("content");
const opened = () => content.querySelector("details[open], input:focus, .command form:focus-within");
if (content && content.dataset.live && content.dataset.live !== "/do" && window.EventSource) {
  const source = new EventSource("/live?page=" + encodeURIComponent(content.dataset.live));
  source.onmessage = (event) => {
    if (!opened()) content.innerHTML = event.data;
  };
  window.addEventListener("pagehide", () => source.close());
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button || !navigator.clipboard) return;
  navigator.clipboard.writeText(button.dataset.copy).then(() => { button.textContent = "Copied"; });
});
