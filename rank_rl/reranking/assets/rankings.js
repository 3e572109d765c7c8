/* Theme, finding and folding; without it the page shows all queries, each to be opened by hand. */
(function () {
  "use strict";

  function all(selector) {
    return Array.prototype.slice.call(document.querySelectorAll(selector));
  }

  var theme = document.getElementById("theme");
  theme.value = document.documentElement.dataset.theme || "auto";
  theme.parentNode.hidden = false;
  theme.addEventListener("change", function () {
    if (theme.value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme.value;
    try {
      if (theme.value === "auto") window.localStorage.removeItem("rank-rl-theme");
      else window.localStorage.setItem("rank-rl-theme", theme.value);
    } catch (blocked) { /* not remembered, and that is all */ }
  });

  var queries = all("details.query"), texts = [];
  var find = document.getElementById("find"), show = document.getElementById("show");
  var form = find.form;

  function update() {
    var wanted = find.value.trim().toLowerCase(), shown = 0;
    queries.forEach(function (query, i) {
      if (wanted && texts[i] === undefined) texts[i] = query.textContent.toLowerCase();
      var fits = (!wanted || texts[i].indexOf(wanted) >= 0) &&
        (show.value === "all" || query.hasAttribute("data-" + show.value));
      query.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    document.getElementById("count").textContent =
      shown + " of " + queries.length + (queries.length === 1 ? " query" : " queries");
  }

  function fold(open) {
    queries.forEach(function (query) { if (!query.hidden) query.open = open; });
  }

  form.hidden = false;
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.addEventListener("input", update);
  document.getElementById("open").addEventListener("click", function () { fold(true); });
  document.getElementById("close").addEventListener("click", function () { fold(false); });
})();
