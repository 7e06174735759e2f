// Sorts tables, shows values, hides lines, folds tables, chooses between dark and light. The page is whole without it.
// No character here needs escaping, in HTML or in XML.
(function () {
  "use strict";
  var root = document.documentElement;
  function all(query, within) { return Array.from((within || document).querySelectorAll(query)); }
  function button(text) {
    var made = document.createElement("button");
    made.type = "button";
    if (text) made.textContent = text;
    return made;
  }

  // Dark and light.
  var theme = button("");
  theme.className = "theme";
  function isDark() {
    if (root.dataset.theme) return root.dataset.theme === "dark";
    return matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function name() { theme.textContent = isDark() ? "Light" : "Dark"; }
  theme.addEventListener("click", function () { root.dataset.theme = isDark() ? "light" : "dark"; name(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
  document.querySelector("header").prepend(theme);

  // Folded tables; whole on paper.
  var details = all("details");
  var opened = [];
  details.forEach(function (one) { one.open = false; });
  addEventListener("beforeprint", function () {
    opened = details.map(function (one) { return one.open; });
    details.forEach(function (one) { one.open = true; });
  });
  addEventListener("afterprint", function () { details.forEach(function (one, i) { one.open = opened[i]; }); });

  // Sorting. What has no value stays at the end.
  function valueOf(cell) {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    if (cell.dataset.sort !== undefined) return cell.dataset.sort;
    var text = cell.textContent;
    if (text === "-") return null;
    return text === "" || isNaN(text) ? text : Number(text);
  }
  function compare(a, b) {
    if (typeof a === "number") if (typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }
  all("table.sortable").forEach(function (table) {
    var body = table.tBodies[0];
    var heads = all("th[data-column]", table);
    heads.forEach(function (head) {
      var press = button(head.textContent);
      head.replaceChildren(press);
      press.addEventListener("click", function () {
        var down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        var column = Number(head.dataset.column);
        var rows = Array.from(body.rows).map(function (row) {
          return { row: row, value: valueOf(row.cells[column]) };
        });
        rows.sort(function (a, b) {
          if (a.value === null) return b.value === null ? 0 : 1;
          if (b.value === null) return -1;
          return down ? compare(b.value, a.value) : compare(a.value, b.value);
        });
        rows.forEach(function (each) { body.append(each.row); });
      });
    });
  });

  // Lines that come and go: a line is shown if both its run and its split are.
  var hidden = new Set();
  var curves = all(".panel .curve");
  all(".legend li").forEach(function (entry) {
    var press = button("");
    press.append.apply(press, Array.from(entry.childNodes));
    press.setAttribute("aria-pressed", "true");
    press.title = "Hide or show";
    entry.append(press);
    press.addEventListener("click", function () {
      var key = entry.dataset.key;
      if (!hidden.delete(key)) hidden.add(key);
      press.setAttribute("aria-pressed", String(!hidden.has(key)));
      curves.forEach(function (curve) {
        curve.classList.toggle("off", hidden.has(curve.dataset.run) || hidden.has(curve.dataset.split));
      });
    });
  });

  // The value of the nearest point.
  var tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  document.body.append(tip);
  all(".panel svg").forEach(function (svg) {
    var own = null;
    var ring = document.createElementNS(svg.namespaceURI, "circle");
    ring.setAttribute("class", "ring");
    ring.setAttribute("r", "6");
    function numbers(text) { return text.split(" "); }
    function read() {
      own = all(".curve", svg).map(function (curve) {
        var data = curve.dataset;
        return {
          curve: curve, epoch: numbers(data.epoch), x: numbers(data.x), y: numbers(data.y),
          at: numbers(curve.querySelector("polyline").getAttribute("points")).map(function (pair) {
            return pair.split(",").map(Number);
          })
        };
      });
    }
    function leave() { tip.hidden = true; ring.remove(); }
    function move(event) {
      if (own === null) read();
      var place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      var best = null;
      var least = Infinity;
      own.forEach(function (line) {
        if (line.curve.classList.contains("off")) return;
        line.at.forEach(function (at, i) {
          var far = Math.hypot(at[0] - place.x, at[1] - place.y);
          if (least > far) { least = far; best = { line: line, i: i, at: at }; }
        });
      });
      if (best === null) return leave();
      var data = best.line.curve.dataset;
      var y = best.line.y[best.i];
      // As it stands in the file; percent is for people.
      var shown = svg.dataset.scale === "100" ? (100 * Number(y)).toFixed(4) + " %" : y;
      var text = data.name + ", " + data.split + ": " + svg.dataset.name + " " + shown + " at epoch " +
        best.line.epoch[best.i];
      var unit = svg.dataset.unit;
      if (unit) text += ", " + Number(best.line.x[best.i]).toFixed(2) + " " + unit;
      tip.textContent = text;
      tip.hidden = false;
      ring.setAttribute("cx", best.at[0]);
      ring.setAttribute("cy", best.at[1]);
      svg.append(ring);
      var box = tip.getBoundingClientRect();
      var right = root.clientWidth - box.width - 8;
      tip.style.left = Math.max(8, Math.min(right, event.clientX + 14)) + "px";
      tip.style.top = (event.clientY > box.height + 24 ? event.clientY - box.height - 14 : event.clientY + 18) + "px";
    }
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", leave);
  });
})();
