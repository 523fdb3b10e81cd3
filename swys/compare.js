"use strict";
{
  // One image at a time, chosen by filter and slider. Without this script all images are shown.
  const gallery = document.getElementById("gallery");
  const cards = [...gallery.querySelectorAll(".card")];
  const filters = [...gallery.querySelectorAll("[data-filter]")];
  const steps = [...gallery.querySelectorAll("[data-step]")];
  const slider = gallery.querySelector("input[type=range]");
  const place = gallery.querySelector("output");
  const layout = gallery.querySelector(".layout");
  const truth = gallery.querySelector("select");
  let chosen = cards;
  let showsAll = false;

  function show() {
    const at = Number(slider.value) - 1;
    const passing = new Set(showsAll ? chosen : chosen.slice(at, at + 1));
    for (const card of cards) card.hidden = !passing.has(card);
    place.textContent = chosen.length ? `${at + 1} of ${chosen.length}` : "none";
    if (showsAll) place.textContent = `${chosen.length} shown`;
    slider.disabled = showsAll || chosen.length < 2;
    // a button that were disabled would lose the focus, and with it the arrow keys
    steps[0].setAttribute("aria-disabled", slider.disabled || at <= 0);
    steps[1].setAttribute("aria-disabled", slider.disabled || at >= chosen.length - 1);
  }

  function choose() {
    const kind = filters.find((button) => button.getAttribute("aria-pressed") === "true").dataset.filter;
    const name = truth ? truth.value : "";
    chosen = cards.filter((card) =>
      (!kind || card.dataset.kind === kind) && (!name || card.dataset.truth === name));
    slider.max = Math.max(chosen.length, 1);
    slider.value = 1;
    show();
  }

  function move(by) {
    if (showsAll) return;
    slider.value = Number(slider.value) + by;
    show();
  }

  for (const button of filters) {
    button.addEventListener("click", () => {
      for (const other of filters) other.setAttribute("aria-pressed", String(other === button));
      choose();
    });
  }
  for (const button of steps) {
    button.addEventListener("click", () => move(Number(button.dataset.step)));
  }
  slider.addEventListener("input", show);
  if (truth) truth.addEventListener("change", choose);
  layout.addEventListener("click", () => {
    showsAll = !showsAll;
    layout.textContent = showsAll ? "one at a time" : "show all";
    show();
  });
  document.addEventListener("keydown", (event) => {
    const withKey = event.altKey || event.ctrlKey || event.metaKey || event.shiftKey;
    if (withKey || event.target.closest("input, select, textarea")) return;
    if (event.key === "ArrowLeft") move(-1);
    if (event.key === "ArrowRight") move(1);
  });
  gallery.querySelector(".controls").hidden = false;
  show();
}
