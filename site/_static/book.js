// A label that hides the words of what it labels is worse than none.
document.addEventListener("DOMContentLoaded", () => {
  for (const labelled of document.querySelectorAll("summary[aria-label], .search-button-field")) {
    labelled.removeAttribute("aria-label");
  }
});
