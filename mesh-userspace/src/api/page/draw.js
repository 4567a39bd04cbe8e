// Small drawings: the last minute as a line, who sends how much where, what took how long in a trace.
const draw = (() => {
  const { svg, h, text, attr, set, tint, style, each } = dom;

  // A line of `points`, the newest at the right.
  const spark = () => {
    const area = svg("path", { class: "area" });
    const line = svg("path", { class: "line" });
    const element = svg("svg", { class: "spark", viewBox: "0 0 59 16", preserveAspectRatio: "none", "aria-hidden": "true" }, area, line);
    const update = (points) => {
      const most = Math.max(1, ...points);
      const at = (value, index) => `${60 - points.length + index},${(15 - (14 * value) / most).toFixed(1)}`;
      const path = points.length > 1 ? `M${points.map(at).join("L")}` : "";
      attr(line, "d", path);
      attr(area, "d", path && `${path}L59,16L${60 - points.length},16Z`);
    };
    return { element, update };
  };

  // Endpoints as squares, the worst first: `[tone, title, href]` each, and how many there are besides.
  const cells = (element, items, more) => {
    if (!element.firstChild) element.append(h("span", { class: "cells" }), h("span", { class: "dim" }));
    each(element.firstChild, items, () => h("a", { tabindex: -1 }), (cell, [tone, title, href]) => {
      set(cell, { "data-tone": tone, href, title, "aria-label": title });
    });
    text(element.lastChild, more ? `+${format.count(more)}` : "");
  };

  // From one to many: a curve each, as thick as its share. `links`: {name, note, tone, rate, href}.
  const flow = (label) => {
    const curves = svg("g", { class: "curves" });
    const ends = svg("g", {});
    const from = svg("g", { class: "from" }, svg("rect", { rx: 8 }), svg("text", { class: "name" }), svg("text", { class: "note" }));
    const element = svg("svg", { class: "flow", role: "img", "aria-label": label }, curves, from, ends);
    const end = () => {
      const link = svg("a", { tabindex: -1 });
      link.append(svg("circle", { r: 5 }), svg("text", { class: "name" }), svg("text", { class: "note" }));
      return link;
    };
    const cut = (value, most) => (value.length > most ? `${value.slice(0, most - 1)}…` : value);
    const update = (name, note, links) => {
      const width = Math.max(320, element.getBoundingClientRect().width);
      const small = width < 560;
      const step = small ? 36 : 30;
      const height = Math.max(96, links.length * step + 12);
      const box = small ? 104 : 190;
      const start = box + 4;
      const stop = small ? 160 : width - 470;
      set(element, { viewBox: `0 0 ${width} ${height}`, height });
      const middle = height / 2;
      const [rect, title, under] = from.children;
      set(rect, { x: 1, y: middle - 26, width: box, height: 52 });
      set(title, { x: 12, y: middle - 3 });
      set(under, { x: 12, y: middle + 15 });
      text(title, cut(name, small ? 13 : 24));
      text(under, cut(note, small ? 15 : 27));
      const most = Math.max(1, ...links.map((link) => link.rate ?? 0));
      const y = (at) => middle + (at - (links.length - 1) / 2) * step;
      each(curves, links, () => svg("path", {}), (curve, link, at) => {
        const bend = (start + stop) / 2;
        set(curve, {
          d: `M${start},${middle}C${bend},${middle} ${bend},${y(at)} ${stop},${y(at)}`,
          "data-tone": link.tone,
          "data-idle": link.rate > 0 ? null : "",
          "stroke-width": link.rate > 0 ? (1.5 + 8 * Math.sqrt(link.rate / most)).toFixed(1) : 1,
        });
      });
      each(ends, links, end, (element, link, at) => {
        attr(element, "href", link.href);
        const [dot, title, under] = element.children;
        set(dot, { cx: stop + 6, cy: y(at), "data-tone": link.tone });
        set(title, { x: stop + 18, y: y(at) + (small ? -1 : 4) });
        text(title, cut(link.name, small ? 24 : 34));
        set(under, { x: small ? stop + 18 : width - 4, y: y(at) + (small ? 11 : 4), "text-anchor": small ? "start" : "end" });
        text(under, cut(link.note, small ? 34 : 60));
      });
    };
    return { element, update };
  };

  // Spans of a trace, each below the one it is part of, from its begin to its end.
  const waterfall = (element, spans) => {
    const whole = Math.max(0.001, ...spans.map((span) => span.offset_ms + span.duration_ms));
    const bar = () => h("div", { class: "span" }, h("span"), h("span", { class: "track" }, h("i")), h("span", { class: "took" }), h("small"));
    const percent = (ms) => `${((ms / whole) * 100).toFixed(2)}%`;
    each(element, nested(spans), bar, (row, { span, depth }) => {
      const [name, track, took, more] = row.children;
      tint(row, span.error ? "bad" : null);
      text(name, span.name);
      style(name, "padding-left", `${depth * 14}px`);
      style(track.firstChild, "left", percent(span.offset_ms));
      style(track.firstChild, "width", percent(span.duration_ms));
      text(took, format.ms(span.duration_ms));
      text(more, Object.entries({ ...(span.error && { error: span.error }), ...span.attributes }).map(([name, value]) => `${name}=${value}`).join("  "));
    });
  };
  const nested = (spans) => {
    const known = new Set(spans.map((span) => span.span_id));
    // What it is part of may be somebody else's; and one that is part of itself would have no end.
    const below = (parent, depth) =>
      spans
        .filter((span) => depth <= spans.length && (known.has(span.parent_id) ? span.parent_id : null) === parent)
        .flatMap((span) => [{ span, depth }, ...below(span.span_id, depth + 1)]);
    return below(null, 0);
  };

  return { spark, cells, flow, waterfall };
})();
