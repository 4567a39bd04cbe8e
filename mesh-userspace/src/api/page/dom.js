// The only way into the document. Names, paths and messages come from anywhere, so they are only ever text: nothing here,
// or anywhere in this page, parses them as HTML.
const dom = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  const fill = (element, properties, children) => {
    for (const [name, value] of Object.entries(properties)) {
      if (value === undefined || value === null) continue;
      if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
      else element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  };

  // An element with attributes, listeners (`on`) and children, which are elements or text.
  const h = (tag, properties = {}, ...children) => fill(document.createElement(tag), properties, children);
  const svg = (tag, properties = {}, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

  // Sets text, an attribute, a class or a property of style only where it is another one: a browser does not compare.
  const text = (element, value) => {
    if (element.textContent !== value) element.textContent = value;
  };
  const attr = (element, name, value) => {
    if (value === null || value === undefined) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  };
  const set = (element, attributes) => Object.entries(attributes).forEach(([name, value]) => attr(element, name, value));
  // How good something is: `good`, `note`, `warn`, `bad`.
  const tint = (element, tone) => attr(element, "data-tone", tone);
  const flag = (element, name, on) => {
    if (element.classList.contains(name) !== on) element.classList.toggle(name, on);
  };
  const style = (element, name, value) => {
    if (element.style.getPropertyValue(name) !== value) element.style.setProperty(name, value);
  };

  // Makes the children of `parent` as many as `items`, each brought up to date by `update(element, item)`.
  const each = (parent, items, make, update) => {
    while (parent.children.length > items.length) parent.lastChild.remove();
    items.forEach((item, at) => update(parent.children[at] ?? parent.appendChild(make()), item, at));
  };

  return { h, svg, text, attr, set, tint, flag, style, each, find: (id) => document.getElementById(id) };
})();
