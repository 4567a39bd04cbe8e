// A list of any length: only the rows in sight are in the document, and of those only what changed is touched.
const list = (() => {
  const { h, text, attr, tint, flag, style } = dom;
  // Rows kept above and below what is in sight, so that scrolling shows no gap.
  const MARGIN = 8;

  // `columns`: {name, title, show: row => text (or update: (cell, row)), by: row => what it is sorted by, falls: large first,
  // exact: row => title, tone: row => tone}.
  const create = ({ name, label, columns, key, href, tone, empty, sort, sorted }) => {
    let order = sort;
    let rows = [];
    let active = null;
    const elements = new Map();

    const heads = columns.map((column) => {
      const head = h("span", { role: "columnheader", class: `c-${column.name}` });
      if (!column.by) head.append(column.title);
      else head.append(h("button", { type: "button", on: { click: () => sortBy(column) } }, column.title));
      return head;
    });
    const head = h("div", { role: "row", class: "head", "aria-rowindex": 1 }, ...heads);
    const body = h("div", { role: "rowgroup", class: "rows" });
    const nothing = h("p", { class: "nothing" });
    const element = h("div", { role: "grid", class: `list ${name}`, "aria-label": label }, head, body, nothing);

    const sortBy = (column) => {
      const falls = order.column === column.name ? !order.falls : Boolean(column.falls);
      order = { column: column.name, falls };
      sorted?.(order);
      app.refresh();
    };
    const compare = () => {
      const { by } = columns.find((column) => column.name === order.column);
      const sign = order.falls ? -1 : 1;
      const value = (row) => by(row) ?? (order.falls ? -Infinity : Infinity);
      return (a, b) => {
        const [left, right] = [value(a), value(b)];
        const way = typeof left === "string" && typeof right === "string" ? store.inOrder(left, right) : Math.sign(left - right) || 0;
        return way * sign || store.inOrder(key(a), key(b));
      };
    };

    const make = () => {
      const cells = columns.map((column) => {
        const cell = h("span", { role: "gridcell", class: `c-${column.name}`, "data-field": column.name });
        if (column.title) cell.setAttribute("data-label", column.title);
        return cell;
      });
      const row = h("div", { role: "row", class: "row", tabindex: -1 }, ...cells);
      row.addEventListener("click", (event) => {
        // A link in the row goes where it leads, and text that was marked is not a click.
        if (!event.target.closest("a") && !getSelection().toString()) open(row.dataset.key);
      });
      row.addEventListener("focus", () => mark(row.dataset.key));
      return row;
    };
    const show = (element, row, at) => {
      dom.set(element, { "data-key": key(row), "aria-rowindex": at + 2, "data-tone": tone?.(row) });
      style(element, "transform", `translateY(${at * height()}px)`);
      columns.forEach((column, at) => {
        const cell = element.children[at];
        if (column.update) column.update(cell, row);
        else text(cell, column.show(row));
        if (column.exact) attr(cell, "title", column.exact(row));
        if (column.tone) tint(cell, column.tone(row));
      });
    };
    let rowHeight = 0;
    const height = () => (rowHeight ||= parseFloat(getComputedStyle(element).getPropertyValue("--row")) || 40);

    const draw = () => {
      rowHeight = 0;
      style(body, "height", `${rows.length * height()}px`);
      const top = body.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(-top / height()) - MARGIN);
      const last = Math.min(rows.length, Math.ceil((innerHeight - top) / height()) + MARGIN);
      const inSight = new Map();
      for (let at = first; at < last; at++) inSight.set(key(rows[at]), at);
      const spare = [];
      for (const [id, element] of elements) {
        // What has the focus stays, lest the keyboard loses its place.
        if (inSight.has(id) || (element.contains(document.activeElement) && find(id) >= 0)) continue;
        elements.delete(id);
        spare.push(element);
      }
      for (const [id, at] of inSight) {
        let element = elements.get(id);
        if (!element) {
          element = spare.pop() ?? body.appendChild(make());
          elements.set(id, element);
        }
        show(element, rows[at], at);
      }
      spare.forEach((element) => element.remove());
      for (const [id, element] of elements) {
        attr(element, "tabindex", id === active || (active === null && inSight.get(id) === 0) ? 0 : -1);
        flag(element, "active", id === active);
      }
    };

    const set = (all, why) => {
      rows = [...all].sort(compare());
      if (active !== null && find(active) < 0) active = null;
      attr(element, "aria-rowcount", rows.length + 1);
      columns.forEach((column, at) => {
        const way = order.falls ? "descending" : "ascending";
        if (column.by) attr(heads[at], "aria-sort", column.name === order.column ? way : "none");
      });
      text(nothing, rows.length ? "" : (why ?? empty));
      nothing.hidden = rows.length > 0;
      head.hidden = rows.length === 0;
      draw();
    };
    const find = (id) => rows.findIndex((row) => key(row) === id);
    const mark = (id) => {
      if (active !== id) {
        active = id;
        draw();
      }
    };
    const go = (at) => {
      if (!rows.length) return;
      const to = Math.max(0, Math.min(rows.length - 1, at));
      active = key(rows[to]);
      // Into sight, and clear of the header that stays.
      const top = body.getBoundingClientRect().top + to * height();
      const low = document.querySelector("header").offsetHeight + 8;
      const high = innerHeight - height() - 8;
      if (top < low) scrollBy(0, top - low);
      else if (top > high) scrollBy(0, top - high);
      draw();
      elements.get(active)?.focus({ preventScroll: true });
    };
    const open = (id) => {
      const row = rows[find(id)];
      const to = row && href?.(row);
      if (to) location.hash = to;
    };
    const press = (event) => {
      const at = active === null ? -1 : find(active);
      const page = Math.max(1, Math.floor(innerHeight / height()) - 4);
      const moves = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: rows.length - 1 };
      if (event.key in moves) go(moves[event.key]);
      else if (event.key === "Enter" && at >= 0 && !event.target.closest("a, button")) open(active);
      else return false;
      return true;
    };

    return { element, set, draw, press, order: () => order };
  };

  return { create };
})();
