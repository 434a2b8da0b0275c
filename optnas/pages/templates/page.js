"use strict";
// A heading of a sortable table becomes a button: once upwards, once more downwards.
function key(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = Number(text.replaceAll(",", ""));
  return text === "" ? null : Number.isNaN(number) ? text : number;
}
function compare(a, b) {
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? -1 : 1;
}
function sort(table, heading) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const column = heading.cellIndex;
  const keyed = Array.from(table.tBodies[0].rows, (row) => [key(row, column), row]);
  keyed.sort(([a], [b]) =>
    a === null || b === null ? (a === null) - (b === null) : down ? compare(b, a) : compare(a, b));
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}
for (const table of document.querySelectorAll("table.sortable"))
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, heading));
    heading.append(button);
  }
// A drawing is shown beside the button that names its row, while that or it is pointed at.
function place(button, drawing) {
  const at = button.getBoundingClientRect(), size = drawing.getBoundingClientRect();
  const room = document.documentElement.clientWidth - size.width - 8;
  const x = Math.min(at.right + 8, room), low = innerHeight - size.height - 8;
  const beside = x >= at.right;  // Else it would hide its button.
  const y = beside ? at.top - 8 : at.bottom + 4 <= low ? at.bottom + 4 : at.top - size.height - 4;
  drawing.style.inset = `${Math.max(8, beside ? Math.min(y, low) : y)}px auto auto ${Math.max(8, x)}px`;
}
for (const button of document.querySelectorAll("button.peek")) {
  const drawing = document.getElementById(button.getAttribute("popovertarget"));
  let leaving;
  const isOpen = () => drawing.matches(":popover-open");
  const show = () => {
    clearTimeout(leaving);
    if (!isOpen()) drawing.showPopover();
  };
  const hide = () => {
    if (isOpen()) drawing.hidePopover();
  };
  const leave = () => {
    leaving = setTimeout(() => document.activeElement === button || hide(), 150);
  };
  for (const each of [button, drawing]) {
    each.addEventListener("mouseenter", show);
    each.addEventListener("mouseleave", leave);
  }
  button.addEventListener("focus", () => {
    if (button.matches(":focus-visible")) show();
  });
  button.addEventListener("blur", hide);
  drawing.addEventListener("toggle", (event) => {
    if (event.newState === "open") place(button, drawing);
  });
}
