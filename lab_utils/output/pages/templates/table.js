// Sorts a table by its heads, and filters it by words above it. Without it the table is whole, in its own order.
// One expression, for pages and for the output of a notebook's cell.
(table) => {
  if (table.dataset.sifted) return;
  table.dataset.sifted = "yes";
  const body = table.tBodies[0];
  const original = [...body.rows];
  const groups = original.filter((row) => row.classList.contains("group"));
  const rows = original.filter((row) => !row.classList.contains("group"));
  const field = document.createElement("input");
  const count = document.createElement("output");
  const label = document.createElement("label");
  const bar = document.createElement("p");
  let sorted = false;

  const sift = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter((word) => word && word !== "-");
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => (word.startsWith("-") ? !text.includes(word.slice(1)) : text.includes(word)));
      shown += !row.hidden;
    }
    // A heading goes with its rows, which are those up to the next one.
    for (const group of groups) {
      let next = group.nextElementSibling;
      while (!sorted && next && next.hidden && !next.classList.contains("group")) next = next.nextElementSibling;
      group.hidden = sorted || !next || next.classList.contains("group");
    }
    count.textContent = words.length ? `${shown} of ${rows.length}` : "";
  };

  const value = (row, place) => {
    const cell = row.cells[place];
    return (cell?.dataset.value ?? cell?.textContent ?? "").trim();
  };
  const compared = (a, b) => {
    const [x, y] = [a, b].map((text) => (text === "" ? NaN : Number(text)));
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a.localeCompare(b, undefined, { numeric: true });
    return x - y;
  };
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = { ascending: "descending", descending: "" }[head.getAttribute("aria-sort")] ?? "ascending";
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      if (order) head.setAttribute("aria-sort", order);
      sorted = Boolean(order);
      const sign = order === "descending" ? -1 : 1;
      const placed = order ? [...rows].sort((a, b) => sign * compared(value(a, place), value(b, place))) : original;
      body.append(...placed);
      sift();
    });
  });

  field.type = "search";
  field.placeholder = "words, -without";
  field.addEventListener("input", sift);
  label.append("Filter ", field);
  bar.className = "sift no-print";
  bar.append(label, count);
  (table.closest(".scroll") ?? table).before(bar);
}
