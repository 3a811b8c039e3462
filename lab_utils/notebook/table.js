(id) => {
  // Sorts a table by its heads, and filters it by the box above.
  const table = document.getElementById(id), box = table.previousElementSibling;
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const key = (row, at) => {
    const text = row.cells[at].dataset.by ?? row.cells[at].textContent;
    return text !== "" && !isNaN(text) ? +text : text;
  };
  const order = (x, y) => (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
  heads.forEach((head, at) => {
    head.firstElementChild.onclick = () => {
      const down = head.ariaSort === "ascending";
      heads.forEach((other) => (other.ariaSort = "none"));
      head.ariaSort = down ? "descending" : "ascending";
      const sorted = [...rows].sort((a, b) => order(key(a, at), key(b, at)));
      body.append(...(down ? sorted.reverse() : sorted));
    };
  });
  const filter = box.querySelector("input"), count = box.querySelector("output");
  filter.oninput = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter((word) => word && word !== "-");
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = words.some((word) => (word[0] === "-" ? text.includes(word.slice(1)) : !text.includes(word)));
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  box.hidden = false;
}
