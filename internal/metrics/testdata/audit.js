// Looks at the page as a reader would, and returns what is wrong with it. The rules of
// contrast and names are those of WCAG 2.2, level AA.
function (width) {
  const wrong = [];
  const name = (e) => e.tagName.toLowerCase() + (e.id ? "#" + e.id : "") + (e.getAttribute("class") ? "." + e.getAttribute("class") : "");
  const all = (selector) => Array.from(document.querySelectorAll(selector));

  // Nothing is wider than the window.
  if (document.documentElement.scrollWidth > width) wrong.push("the page is " + document.documentElement.scrollWidth + " pixels wide");
  for (const e of all("body *")) {
    if (e.closest(".hidden") || e.closest("defs")) continue;
    if (getComputedStyle(e).clipPath !== "none") { e.classList.add("hidden"); continue; } // for screen readers alone
    const r = e.getBoundingClientRect();
    if (r.width > 0 && (r.right > width + 0.5 || r.left < -0.5)) wrong.push(name(e) + " is from " + r.left + " to " + r.right);
    if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && getComputedStyle(e).overflowX !== "visible" && !e.matches("input,select")) wrong.push(name(e) + " is cut");
  }

  // Text can be read.
  const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); return { rgb: m.slice(0, 3), a: m.length > 3 ? m[3] : 1 }; };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.a === 1) return c.rgb;
      if (c.a !== 0) wrong.push(name(e) + " has a background that is half transparent");
    }
    wrong.push("the page has no background");
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  const low = new Set();
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || e.closest(".hidden") || e.closest("svg")) continue;
    seen++;
    const fore = parse(getComputedStyle(e).color);
    const [a, b] = [luminance(fore.rgb), luminance(back(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (fore.a !== 1 || ratio < 4.5) low.add(name(e) + " has a contrast of " + ratio.toFixed(2));
  }
  wrong.push(...low);
  if (seen < 10) wrong.push("only " + seen + " texts");

  // Whoever hears the page finds the way.
  if (document.documentElement.lang !== "en") wrong.push("no language");
  if (!document.title.trim()) wrong.push("no title");
  let level = 0;
  for (const h of all("h1,h2,h3,h4,h5,h6")) {
    const n = Number(h.tagName[1]);
    if (n > level + 1 || level === 0 && n !== 1) wrong.push(name(h) + " after a heading of level " + level);
    level = n;
  }
  if (all("h1").length !== 1) wrong.push(all("h1").length + " headings of level 1");
  for (const e of all("input:not([type=hidden]),select,textarea")) if (!e.labels.length) wrong.push(name(e) + " has no label");
  for (const e of all("th")) if (!["col", "row"].includes(e.scope)) wrong.push(name(e) + " has no scope");
  for (const e of all("table")) if (!e.caption || !e.caption.textContent.trim()) wrong.push(name(e) + " has no caption");
  for (const e of all("svg")) {
    if (e.getAttribute("aria-hidden") === "true" || e.parentElement.closest("svg")) continue;
    if (e.getAttribute("role") !== "img" || !(e.getAttribute("aria-label") || "").trim()) wrong.push(name(e) + " says nothing");
  }
  for (const e of all("a")) if (!e.getAttribute("href") || !e.textContent.trim()) wrong.push(name(e) + " leads nowhere or says nothing");
  const ids = all("[id]").map((e) => e.id);
  for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) !== i))) wrong.push("two of #" + id);
  for (const e of all("[aria-labelledby]")) if (!document.getElementById(e.getAttribute("aria-labelledby"))) wrong.push(name(e) + " has the label of nothing");
  // What can be touched is large enough, or in a line of text (2.5.8).
  for (const e of all("button,input:not([type=hidden]),select")) if (e.getBoundingClientRect().height < 24) wrong.push(name(e) + " is too small");
  for (const e of all("[style],script")) wrong.push(name(e) + " has a style or is a script");
  return wrong;
}
