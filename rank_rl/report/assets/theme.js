/* Runs before anything is drawn: the theme that was chosen last time, where it could be kept. */
(function () {
  "use strict";
  try {
    var chosen = window.localStorage.getItem("rank-rl-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch (blocked) { /* storage is blocked: the system's theme stays */ }
})();
