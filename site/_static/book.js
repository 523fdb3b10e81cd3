// A label that says something else than the words that it labels is worse than none. In a narrow
// window the search button shows no words, and keeps its label.
document.addEventListener("DOMContentLoaded", () => {
  for (const labelled of document.querySelectorAll("summary[aria-label], .search-button-field")) {
    if (labelled.innerText.trim()) {
      labelled.removeAttribute("aria-label");
    }
  }
});

// An arrow that unfolds a part of the contents says of which part.
document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll("summary:has(.toctree-toggle)")) {
    const link = arrow.closest("li").querySelector("a");
    arrow.setAttribute("aria-label", `Pages of ${link.textContent.trim()}`);
  }
});
