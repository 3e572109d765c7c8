/* What the page does beyond showing: theme, sorting, filters, the choice of a cost, the queries.
   Texts enter the page as text nodes only; nothing is ever parsed as HTML. */
(function () {
  "use strict";

  var FIRST = 20, MORE = 50;
  var TIE = 1e-9;

  function all(selector, root) {
    return Array.prototype.slice.call((root || document).querySelectorAll(selector));
  }

  /* An element with attributes and children; strings become text. */
  function el(name, attributes) {
    var made = document.createElement(name);
    Object.keys(attributes || {}).forEach(function (key) {
      var value = attributes[key];
      if (value === null || value === undefined || value === false) return;
      if (key === "on") Object.keys(value).forEach(function (k) { made.addEventListener(k, value[k]); });
      else made.setAttribute(key, value === true ? "" : value);
    });
    for (var i = 2; i < arguments.length; i++) add(made, arguments[i]);
    return made;
  }

  function add(parent, child) {
    if (child === null || child === undefined || child === false) return;
    if (Array.isArray(child)) child.forEach(function (c) { add(parent, c); });
    else parent.appendChild(typeof child === "object" ? child : document.createTextNode(String(child)));
  }

  function empty(node) {
    while (node.firstChild) node.removeChild(node.firstChild);
  }

  function hidden(text) {
    return el("span", { "class": "vh" }, text);
  }

  function fixed(value) {
    return value === null || value === undefined ? "" : value.toFixed(3);
  }

  function signed(value) {
    if (value === null) return "";
    var text = Math.abs(value).toFixed(3);
    return (value < 0 && Number(text) !== 0 ? "\u2212" : "+") + text;
  }

  function plural(count, one, many) {
    return count.toLocaleString("en-GB") + " " + (count === 1 ? one : many);
  }

  /* Theme */

  function themes() {
    var select = document.getElementById("theme");
    select.value = document.documentElement.dataset.theme || "auto";
    select.parentNode.hidden = false;
    select.addEventListener("change", function () {
      if (select.value === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = select.value;
      try {
        if (select.value === "auto") window.localStorage.removeItem("rank-rl-theme");
        else window.localStorage.setItem("rank-rl-theme", select.value);
      } catch (blocked) { /* not remembered, and that is all */ }
    });
  }

  /* Sorting: rows without a value stay last in both directions; equal rows keep their order. */

  function sortable(table) {
    var heads = all("thead th", table);
    var body = table.tBodies[0];
    var given = all("tr", body);
    var said = el("p", { "class": "vh", role: "status" });
    table.parentNode.parentNode.insertBefore(said, table.parentNode.nextSibling);
    heads.forEach(function (head, column) {
      var button = head.querySelector("button.sort");
      if (!button) return;
      var numeric = button.dataset.numeric === "1";
      button.addEventListener("click", function () {
        var before = head.getAttribute("aria-sort");
        var first = numeric ? "descending" : "ascending";
        var other = numeric ? "ascending" : "descending";
        var now = before === first ? other : first;
        heads.forEach(function (h) { h.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", now);
        var sign = now === "ascending" ? 1 : -1;
        var key = function (row) {
          var value = row.cells[column].getAttribute("data-v");
          return value === null || value === "" ? null : numeric ? Number(value) : value;
        };
        given.slice().sort(function (a, b) {
          var x = key(a), y = key(b);
          if (x === null || y === null) return (x === null) - (y === null);
          if (x === y) return 0;
          return numeric ? sign * (x - y) : sign * x.localeCompare(y, "en", { numeric: true });
        }).forEach(function (row) { body.appendChild(row); });
        said.textContent = "Sorted by " + button.textContent.trim() + ", " + now + ".";
      });
    });
  }

  /* Leaderboard filter */

  function filters(form) {
    var rows = all("tbody tr", document.getElementById(form.dataset.filter));
    var text = form.querySelector("[data-control=text]");
    var kind = form.querySelector("[data-control=kind]");
    var count = form.querySelector("[data-part=count]");
    form.hidden = false;
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    form.addEventListener("input", function () {
      var wanted = text.value.trim().toLowerCase(), shown = 0;
      rows.forEach(function (row) {
        var name = row.cells[0].querySelector(".v").textContent.toLowerCase();
        var fits = name.indexOf(wanted) >= 0 && (!kind.value || row.dataset.kind === kind.value);
        row.hidden = !fits;
        shown += fits ? 1 : 0;
      });
      count.textContent = shown + " of " + plural(rows.length, "system", "systems");
    });
  }

  /* One of several figures */

  function choices(field) {
    var parts = all('[data-choice-of="' + field.dataset.choice + '"]');
    function show() {
      var chosen = field.querySelector("input:checked").value;
      parts.forEach(function (part) { part.hidden = part.id !== field.dataset.choice + chosen; });
    }
    field.hidden = false;
    field.addEventListener("change", show);
    show();
  }

  /* Queries */

  function Explorer(section) {
    var slug = section.dataset.explorer;
    this.slug = slug;
    this.section = section;
    this.data = JSON.parse(document.getElementById("data-" + slug).textContent);
    this.shown = FIRST;
    this.controls = {};
    all("[data-control]", section).forEach(function (node) { this.controls[node.dataset.control] = node; }, this);
    this.parts = {};
    all("[data-part]", section).forEach(function (node) { this.parts[node.dataset.part] = node; }, this);
    if (!this.data.queries) return;
    this.prepare();
    this.update();
  }

  Explorer.prototype.prepare = function () {
    var self = this, data = this.data, controls = this.controls;
    data.systems.forEach(function (system, i) {
      controls.system.appendChild(el("option", { value: i }, system.name));
      controls.baseline.appendChild(el("option", { value: i }, system.name));
    });
    controls.system.value = data.system;
    controls.baseline.value = data.baseline;
    data.metrics.forEach(function (metric, i) {
      controls.metric.appendChild(el("option", { value: i }, metric));
    });
    var types = {};
    data.queries.forEach(function (query) { if (query.type) types[query.type] = true; });
    controls.type.appendChild(el("option", { value: "" }, "all types"));
    Object.keys(types).sort().forEach(function (type) {
      controls.type.appendChild(el("option", { value: type }, type));
    });
    controls.type.parentNode.hidden = !Object.keys(types).length;
    var form = controls.text.form;
    form.hidden = false;
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    form.addEventListener("input", function () { self.shown = FIRST; self.update(); });
    this.parts.more.addEventListener("click", function () {
      var first = self.shown;
      self.shown += MORE;
      self.update();
      var buttons = all("button.open", self.section);
      if (buttons[first]) buttons[first].focus();
    });
    this.section.addEventListener("keydown", function (event) { arrows(event, self.section); });
    data.notes.forEach(function (note) { self.parts.notes.appendChild(el("p", {}, note)); });
    var left = data.of - data.queries.length;
    if (left > 0) self.parts.notes.appendChild(el("p", {}, left.toLocaleString("en-GB") + " of " + plural(data.of, "query is", "queries are") + " not on this page, which would be too large: those on which systems differ least."));
    if (data.characters) self.parts.notes.appendChild(el("p", {}, "Texts are cut to their first " + data.characters + " characters, to keep the page small."));
  };

  /* Up, down, home and end go from query to query. */
  function arrows(event, section) {
    if (!event.target.classList.contains("open")) return;
    var buttons = all("button.open", section), at = buttons.indexOf(event.target);
    var next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (next === undefined || !buttons[next]) return;
    event.preventDefault();
    buttons[next].focus();
  }

  Explorer.prototype.value = function (query, system) {
    var value = query.values[system][Number(this.controls.metric.value)];
    return value === undefined ? null : value;
  };

  Explorer.prototype.difference = function (query) {
    var one = this.value(query, Number(this.controls.baseline.value));
    var other = this.value(query, Number(this.controls.system.value));
    return one === null || other === null ? null : other - one;
  };

  Explorer.prototype.fits = function (query) {
    var wanted = this.controls.text.value.trim().toLowerCase();
    if (wanted && (query.text + "\n" + query.id).toLowerCase().indexOf(wanted) < 0) return false;
    if (this.controls.type.value && query.type !== this.controls.type.value) return false;
    var show = this.controls.show.value, gap = this.difference(query);
    if (show === "all") return true;
    if (show === "issue") return troubled(query.answers[Number(this.controls.system.value)]);
    if (gap === null) return false;
    return show === "win" ? gap > TIE : show === "loss" ? gap < -TIE : Math.abs(gap) <= TIE;
  };

  function troubled(answer) {
    if (!answer) return false;
    var statuses = answer.statuses || {};
    return Boolean(statuses.failed || statuses.repaired || answer.issues);
  }

  Explorer.prototype.sorted = function (queries) {
    var self = this, by = this.controls.sort.value;
    if (by === "given") return queries;
    function key(query) {
      if (by === "low") return self.value(query, Number(self.controls.system.value));
      var gap = self.difference(query);
      return gap === null ? null : by === "gain" ? -gap : gap;
    }
    return queries.slice().sort(function (a, b) {
      var x = key(a), y = key(b);
      if (x === null || y === null) return (x === null) - (y === null);
      return x - y;
    });
  };

  Explorer.prototype.update = function () {
    var self = this, data = this.data;
    this.found = this.sorted(data.queries.filter(function (query) { return self.fits(query); }));
    var baseline = data.systems[this.controls.baseline.value].name;
    var system = data.systems[this.controls.system.value].name;
    var list = this.found.slice(0, this.shown);
    this.parts.count.textContent = this.found.length + " of " + plural(data.queries.length, "query", "queries") +
      (list.length < this.found.length ? ", the first " + list.length + " shown" : "");
    var head = ["Query", baseline, system, "difference"].map(function (title, i) {
      return el("th", { scope: "col", "class": i ? i < 3 ? "n roomy" : "n" : null }, title);
    });
    var rows = list.map(function (query, i) {
      var gap = self.difference(query);
      var one = fixed(self.value(query, Number(self.controls.baseline.value)));
      var other = fixed(self.value(query, Number(self.controls.system.value)));
      var open = el("button", { type: "button", "class": "open", dir: "auto", on: { click: function () { reader.open(self, i); } } }, query.text || query.id);
      return el("tr", {},
        el("th", { scope: "row" }, open),
        el("td", { "class": "n roomy" }, one),
        el("td", { "class": "n roomy" }, other),
        el("td", { "class": "n" }, el("span", { "class": gap > TIE ? "up" : gap < -TIE ? "down" : null }, signed(gap)),
          gap === null ? null : el("span", { "class": "d tight" }, one + " → " + other)));
    });
    var caption = "Queries of " + data.label + " in " + data.metrics[this.controls.metric.value];
    var table = el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
    empty(this.parts.list);
    if (rows.length) add(this.parts.list, el("div", { "class": "scroll", role: "region", "aria-label": caption, tabindex: "0" }, table));
    this.parts.more.hidden = list.length >= this.found.length;
  };

  /* The open query */

  function Reader(dialog) {
    var self = this;
    this.dialog = dialog;
    this.parts = {};
    all("[data-part]", dialog).forEach(function (node) { this.parts[node.dataset.part] = node; }, this);
    this.parts.close.addEventListener("click", function () { dialog.close(); });
    this.parts.previous.addEventListener("click", function () { self.go(-1); });
    this.parts.next.addEventListener("click", function () { self.go(1); });
    dialog.addEventListener("close", function () { self.closed(); });
    dialog.addEventListener("keydown", function (event) {
      var step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && !event.target.closest(".scroll, pre")) self.go(step);
    });
    ["mouseover", "focusin"].forEach(function (name) {
      this.parts.body.addEventListener(name, function (event) {
        var item = event.target.closest("li[data-document]");
        all("li[data-document]", self.parts.body).forEach(function (other) {
          other.classList.toggle("same", Boolean(item) && other.dataset.document === item.dataset.document);
        });
      });
    }, this);
  }

  Reader.prototype.open = function (explorer, index) {
    if (this.explorer !== explorer) this.chosen = null;
    this.explorer = explorer;
    this.at = index;
    var system = Number(explorer.controls.system.value), baseline = Number(explorer.controls.baseline.value);
    this.chosen = this.chosen || {};
    this.chosen[system] = true;
    this.chosen[baseline] = this.chosen[baseline] || explorer.data.systems[baseline].asked;
    this.show();
    if (!this.dialog.open) this.dialog.showModal();
    document.getElementById("reader-title").focus();
    this.parts.body.scrollTop = 0;
  };

  Reader.prototype.go = function (step) {
    if (this.explorer.found[this.at + step]) this.open(this.explorer, this.at + step);
  };

  /* Focus goes back to the query that was open last, if it is in the list. */
  Reader.prototype.closed = function () {
    var button = all("button.open", this.explorer.section)[this.at];
    if (button) button.focus();
  };

  Reader.prototype.show = function () {
    var self = this, explorer = this.explorer, data = explorer.data, query = explorer.found[this.at];
    var title = document.getElementById("reader-title");
    title.textContent = query.text || query.id;
    title.setAttribute("dir", "auto");
    this.parts.previous.disabled = this.at === 0;
    this.parts.next.disabled = this.at === explorer.found.length - 1;
    var body = this.parts.body;
    empty(body);
    add(body, facts(query));
    if (query.documents.length) {
      add(body, el("h3", {}, "Before and after"));
      add(body, this.toggles(query));
      var columns = [order(data, query, -1)];
      data.systems.forEach(function (system, i) {
        if (self.chosen[i] && (query.orders[i] || query.answers[i])) columns.push(order(data, query, i));
      });
      add(body, el("div", { "class": "orders" }, columns));
    } else {
      add(body, el("p", {}, "The documents of this query are not known: there are no tasks, runs or exchanges beside the result."));
    }
    add(body, el("h3", {}, "Values"));
    add(body, values(data, query));
  };

  Reader.prototype.toggles = function (query) {
    var self = this;
    var boxes = this.explorer.data.systems.map(function (system, i) {
      if (!query.orders[i] && !query.answers[i]) return null;
      var box = el("input", { type: "checkbox", checked: Boolean(self.chosen[i]), on: { change: function () {
        self.chosen[i] = box.checked;
        self.show();
        var again = self.parts.body.querySelector('input[data-system="' + i + '"]');
        if (again) again.focus();
      } } });
      box.dataset.system = i;
      return el("label", {}, box, " " + system.name);
    });
    return el("fieldset", { "class": "choice" }, el("legend", {}, "Orders of"), boxes);
  };

  function facts(query) {
    var said = ["Query " + query.id];
    if (query.type) said.push("type " + query.type);
    if (query.length) said.push(query.length);
    if (query.candidates) said.push(plural(query.candidates, "candidate", "candidates"));
    var found = [el("p", { "class": "what" }, said.join(", "))];
    if (query.instruction) found.push(el("p", { "class": "text", dir: "auto" }, query.instruction));
    return found;
  }

  /* One column: the input order (system -1), or a system's, with what it said. */
  function order(data, query, system) {
    var name = system < 0 ? "Input order" : data.systems[system].name;
    var listed = system < 0 ? query.documents.map(function (_, i) { return i; }) : query.orders[system] || [];
    if (system < 0 && query.candidates !== null) listed = listed.slice(0, query.candidates);
    var answer = system < 0 ? null : query.answers[system];
    var items = listed.map(function (number, rank) { return item(query, answer, number, rank, system); });
    return el("section", { "class": system < 0 ? "order input" : "order", "aria-label": name },
      el("h4", {}, name),
      el("p", {}, system < 0 ? "as the first stage gave it" : summary(data, query, system, answer)),
      answer ? said(answer) : null,
      items.length ? el("ol", {}, items) : el("p", {}, "No order of it is known."));
  }

  function summary(data, query, system, answer) {
    var parts = [data.metrics[0] + " " + fixed(query.values[system][0])];
    if (answer) {
      var statuses = Object.keys(answer.statuses || {}).map(function (key) {
        return key + (answer.statuses[key] > 1 ? " " + answer.statuses[key] : "");
      });
      if (statuses.length) parts.push(statuses.join(", "));
      parts.push(plural(answer.read, "token", "tokens") + " read, " + answer.written.toLocaleString("en-GB") + " written");
      parts.push(answer.seconds.toFixed(2) + " s");
      if (answer.calls > 1) parts.push(plural(answer.calls, "question", "questions"));
    }
    return parts.join(" · ");
  }

  /* What a system said about the list as a whole. */
  function said(answer) {
    var found = [];
    Object.keys(answer.issues || {}).forEach(function (issue) {
      var count = answer.issues[issue];
      found.push(el("p", { "class": "warn" }, "Issue: " + issue + (count > 1 ? " (" + count + " times)" : "")));
    });
    var reasoning = answer.reasoning || [];
    if (reasoning.length) {
      found.push(el("details", { "class": "numbers", open: reasoning.join("").length < 1500 },
        el("summary", {}, "Reasoning about the list"),
        reasoning.map(function (text) { return el("p", { "class": "text said", dir: "auto" }, text); })));
    }
    var texts = answer.texts || [];
    if (texts.length) {
      found.push(el("details", { "class": "numbers" },
        el("summary", {}, texts.length > 1 ? "Answers as written (" + texts.length + ")" : "Answer as written"),
        texts.map(function (text) { return el("pre", { dir: "auto", tabindex: "0" }, text); })));
    }
    return found;
  }

  function item(query, answer, number, rank, system) {
    var doc = query.documents[number];
    var note = answer && answer.notes && answer.notes[number];
    var why = answer && answer.comparisons && answer.comparisons[number];
    var score = answer && answer.scores && answer.scores[number];
    var title = doc.title || doc.text || doc.id;
    var summary = el("summary", {},
      el("span", { "class": "rank" }, hidden("rank "), rank + 1),
      system < 0 ? null : move(number, rank, query),
      grade(query, doc),
      el("span", { "class": "title", dir: "auto" }, title.slice(0, 160)));
    var inside = el("div", { "class": "inside" },
      el("p", { "class": "what" }, "Document " + doc.id + (score === undefined || score === null ? "" : ", score " + score)),
      doc.title ? el("p", { "class": "text", dir: "auto" }, el("b", {}, doc.title)) : null,
      el("p", { "class": "text", dir: "auto" }, doc.text || "Its text is not known."));
    return el("li", { "data-document": number }, el("details", {}, summary, inside),
      note ? el("p", { "class": "text said", dir: "auto" }, el("span", { "class": "what" }, "Reasoning: "), note) : null,
      why ? el("p", { "class": "text said why", dir: "auto" }, el("span", { "class": "what" }, "Why here: "), why) : null);
  }

  /* Places moved against the input; documents that were no candidates are new. */
  function move(number, rank, query) {
    if (query.candidates !== null && number >= query.candidates) return el("span", { "class": "move" }, "new");
    var places = number - rank;
    if (!places) return el("span", { "class": "move stay" }, el("span", { "aria-hidden": "true" }, "="), hidden("not moved"));
    var way = places > 0 ? "up" : "down";
    return el("span", { "class": "move " + way },
      el("span", { "aria-hidden": "true" }, (places > 0 ? "▲" : "▼") + Math.abs(places)),
      hidden(way + " " + plural(Math.abs(places), "place", "places")));
  }

  function grade(query, doc) {
    if (!query.judged) return el("span", { "class": "grade unknown" }, "grade ?");
    if (doc.grade === undefined) return el("span", { "class": "grade unknown" }, "unjudged");
    var style = doc.grade <= 0 ? "g0" : doc.grade === 1 ? "g1" : "g2";
    return el("span", { "class": "grade " + style }, "grade " + doc.grade);
  }

  function values(data, query) {
    var caption = "Values of this query";
    var head = ["system"].concat(data.metrics).map(function (title, i) {
      return el("th", { scope: "col", "class": i ? "n" : null }, title);
    });
    var rows = data.systems.map(function (system, i) {
      return el("tr", {}, el("th", { scope: "row" }, system.name),
        data.metrics.map(function (_, m) { return el("td", { "class": "n" }, fixed(query.values[i][m])); }));
    });
    return el("div", { "class": "scroll", role: "region", "aria-label": caption, tabindex: "0" },
      el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
  }

  themes();
  all("table").forEach(function (table) { if (table.querySelector("button.sort")) sortable(table); });
  all("form[data-filter]").forEach(filters);
  all("fieldset[data-choice]").forEach(choices);
  var reader = new Reader(document.getElementById("reader"));
  all("[data-explorer]").forEach(function (section) { new Explorer(section); });
})();
