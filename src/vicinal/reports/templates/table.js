for (const table of document.querySelectorAll("table.sortable")) {
  const bodies = [...table.tBodies];
  const name = table.getAttribute("aria-label");
  const number = text => {
    const found = text.replaceAll(",", "").replaceAll("−", "-").match(/^[+±×]?\s*(-?\d+(\.\d+)?(e[+-]?\d+)?)/);
    return found ? Number(found[1]) : NaN;
  };
  const rows = body => [...body.rows].filter(row => !row.classList.contains("condition"));
  const original = bodies.map(rows);
  const sort = (column, direction) => bodies.forEach((body, k) => {
    const cell = row => row.cells[column].textContent.trim();
    const compare = (one, two) => {
      const [a, b] = [cell(one), cell(two)];
      if ((a === "—") !== (b === "—")) return a === "—" ? 1 : -1;
      const [x, y] = [number(a), number(b)];
      return direction * (isNaN(x) || isNaN(y) ? a.localeCompare(b) : x - y);
    };
    body.append(...(direction ? [...original[k]].sort(compare) : original[k]));
  });
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      heads.forEach(one => one.removeAttribute("aria-sort"));
      const order = next === undefined ? "ascending" : next;
      if (order) head.setAttribute("aria-sort", order);
      sort(column, { ascending: 1, descending: -1 }[order] ?? 0);
    });
  });
  table.classList.add("ready");
  const count = original.flat().length;
  if (count > 3 && table.classList.contains("filtered")) {
    const line = document.createElement("p");
    const label = document.createElement("label");
    const input = document.createElement("input");
    const shown = document.createElement("span");
    line.className = "filter";
    input.type = "search";
    shown.setAttribute("role", "status");
    label.append(`Filter ${name} `, input);
    line.append(label, shown);
    table.before(line);
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      bodies.forEach((body, k) => {
        const condition = body.querySelector(".condition");
        let some = 0;
        for (const row of original[k]) {
          const verdict = row.querySelector("[data-name=verdict]");
          const parts = [condition, row.cells[0], verdict].map(part => part?.textContent ?? "");
          const text = parts.join(" ").toLowerCase();
          row.hidden = !wanted.every(word => text.includes(word));
          some += !row.hidden;
        }
        if (condition) condition.hidden = !some;
        left += some;
      });
      shown.textContent = wanted.length ? `${left} of ${count} rows` : "";
    });
  }
}
