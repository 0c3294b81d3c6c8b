"""The HTML, style and script of the step-through page; @@TITLE@@, @@PICTURES@@ and @@DATA@@ are filled in."""

TEMPLATE = r"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src
'unsafe-inline'"> <title>@@TITLE@@</title>
<style>
:root { color-scheme: light dark; --back: #ffffff; --panel: #f4f6f8; --text: #16202a; --quiet: #55606b;
  --line: #c5ccd3; --forward: #1f5f99; --backward: #a1470b; --focus: #c2185b; }
@media (prefers-color-scheme: dark) { :root:not([data-theme=light]) { --back: #14191f; --panel: #1e252d;
  --text: #e6ebf0; --quiet: #a3afba; --line: #3b4650; --forward: #7db9ef; --backward: #f2a36b; --focus:
  #ff7bac; } :root:not([data-theme=light]) .level svg { filter: invert(.9) hue-rotate(180deg); } }
:root[data-theme=dark] { --back: #14191f; --panel: #1e252d; --text: #e6ebf0; --quiet: #a3afba; --line:
  #3b4650; --forward: #7db9ef; --backward: #f2a36b; --focus: #ff7bac; color-scheme: dark; }
:root[data-theme=dark] .level svg { filter: invert(.9) hue-rotate(180deg); }
:root[data-theme=light] { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.45 system-ui, Helvetica, Arial,
sans-serif;
  display: grid; grid-template: auto 1fr / minmax(0, 1fr) minmax(20rem, 30rem); height: 100vh; }
header { grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; padding: .5rem
.8rem;
  background: var(--panel); border-bottom: 1px solid var(--line); }
h1 { font-size: 1rem; margin: 0 auto 0 0; overflow-wrap: anywhere; }
button, select { font: inherit; color: inherit; background: var(--back); border: 1px solid var(--line);
border-radius: .35rem;
  padding: .2rem .6rem; min-height: 2rem; }
button:focus-visible, select:focus-visible, .node:focus-visible, .cluster:focus-visible {
  outline: 3px solid var(--focus); outline-offset: 1px; }
#where { font-variant-numeric: tabular-nums; min-width: 6rem; text-align: center; }
main { overflow: auto; padding: .8rem; }
.level svg { max-width: none; height: auto; display: block; margin: 0 auto; }
aside { overflow: auto; padding: .8rem 1rem; background: var(--panel); border-left: 1px solid var(--line); }
aside h2 { margin: 0 0 .2rem; font-size: 1.15rem; overflow-wrap: anywhere; }
.phase { font-weight: 600; text-transform: uppercase; letter-spacing: .04em; font-size: .8rem; }
.phase.forward { color: var(--forward); } .phase.backward { color: var(--backward); }
.quiet { color: var(--quiet); font-size: .88rem; overflow-wrap: anywhere; }
.formula { margin: .6rem 0; padding: .5rem .6rem; background: var(--back); border-radius: .35rem; overflow-x:
auto; font-size: 1.1rem; } h3 { margin: .9rem 0 .2rem; font-size: .9rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .5rem .2rem 0; border-bottom: 1px solid
var(--line); font-weight: 400; } th { overflow-wrap: anywhere; max-width: 11rem; }
td.numbers { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .85rem; white-space: pre-wrap;
overflow-wrap: anywhere; } .strip { display: grid; gap: 0; width: max-content; margin-top: .2rem; }
.strip i { width: 11px; height: 9px; }
.node { cursor: pointer; }
.node.waiting, .edge.waiting { opacity: .16; }
.closes { cursor: pointer; } .closes:hover { fill: #c2185b; }
.edge.gradient.unseen, .node.unseen { opacity: 0; }
.node.now > g > a > :first-child { stroke: var(--focus); stroke-width: 4px; }
.edge.now path { stroke: var(--focus); stroke-width: 3px; } .edge.now polygon { stroke: var(--focus); fill:
var(--focus); } @media (max-width: 50rem) { body { grid-template: auto minmax(14rem, 1fr) auto / 1fr; height:
auto; } aside { border-left: 0; } } @media (prefers-reduced-motion: no-preference) { .node, .edge {
transition: opacity .2s; } } </style>
</head>
<body>
<header>
  <h1>@@TITLE@@</h1>
  <label class="quiet">Detail <select id="level"></select></label>
  <button id="first" aria-label="First step (Home)" title="First step (Home)">|&#x25C0;</button>
  <button id="back" aria-label="Step back (Left arrow)" title="Step back (&larr;)">&#x25C0;</button>
  <button id="play" aria-pressed="false" title="Play or pause (Space)">Play</button>
  <button id="next" aria-label="Next step (Right arrow)" title="Next step (&rarr;)">&#x25B6;</button>
  <button id="last" aria-label="Last step (End)" title="Last step (End)">&#x25B6;|</button>
  <label class="quiet">Speed <select id="speed"><option value="3000">&frac12;</option><option value="1500"
    selected>1</option> <option value="750">2</option><option value="300">5</option></select></label>
  <span id="where" role="status"></span>
  <button id="theme" title="Light or dark">Light/dark</button>
</header>
<main id="pictures" tabindex="-1" aria-label="Computation graph">
@@PICTURES@@
</main>
<aside id="step" tabindex="-1" aria-live="polite" aria-label="This step"></aside>
<script type="application/json" id="data">@@DATA@@</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const COLOURS = ["#0d2a52", "#2f4f7f", "#5d6d84", "#868b85", "#b3a96c", "#dcc74f", "#fdea6b"];
let level = 0, at = 0, timer = null;

function make(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}
function table(title, rows) {
  const box = document.createDocumentFragment();
  if (!rows || !rows.length) return box;
  box.append(make("h3", title));
  const list = make("table");
  for (const row of rows) {
    const line = make("tr"), head = make("th", row.name), cell = make("td", undefined, "numbers");
    head.scope = "row";
    head.append(document.createElement("br"), make("span", row.shape, "quiet"));
    cell.append(make("span", row.numbers || (row.strip.length ? "" : "–")));
    if (row.strip.length) {
      const strip = make("div", undefined, "strip");
      strip.setAttribute("role", "img");
      strip.setAttribute("aria-label", "heat strip, dark is low and light is high");
      strip.style.gridTemplateColumns = `repeat(${row.strip[0].length}, 11px)`;
      for (const value of row.strip.join("")) {
        const block = make("i");
        block.style.background = COLOURS[value] || "#ff00ff";
        strip.append(block);
      }
      cell.append(strip);
    }
    line.append(head, cell);
    list.append(line);
  }
  box.append(list);
  return box;
}
function show() {
  const steps = data.levels[level].steps, step = steps[at], pane = $("step");
  $("where").textContent = `${at + 1} of ${steps.length}`;
  pane.replaceChildren();
  pane.append(make("div", step.phase === "given" ? "start" : step.phase, "phase " + step.phase), make("h2",
  step.title)); if (step.scope) pane.append(make("div", "in " + step.scope, "quiet"));
  if (step.text) pane.append(make("p", step.text));
  if (step.phase === "given" && data.levels.length > 1) pane.append(make("p",
  "A click on the title of a cluster closes it and those as deep; Detail does the same.", "quiet"));
  const inner = opened();
  if (step.box && inner) {
    const button = make("button", "Open this scope");
    button.id = "open";
    button.onclick = () => { turn(inner, other => ((other.scope || "") + "/").startsWith(
    (step.scope ? step.scope + "/" : "") + step.box + "/")); $("step").focus(); };
    pane.append(button);
  }
  if (step.formula) {
    const formula = make("div", undefined, "formula");
    formula.innerHTML = data.formulas[step.formula];
    pane.append(formula);
  }
  const backward = step.phase === "backward";
  pane.append(table(backward ? "Gradients that arrive" : "Arguments", step.phase === "given" ? [] :
  step.rows)); if (step.phase === "given") pane.append(table("Values", step.rows));
  pane.append(table(backward && step.rows.length > 1 ? "Their sum" : "Gradient that arrives", step.sums));
  pane.append(table(backward ? "Gradients sent on" : "Result", step.results));
  if (step.line) pane.append(make("p", "recorded at " + step.line, "quiet"));
  paint(steps);
}
function paint(steps) {
  const reached = new Map(), turned = steps[at].phase === "backward";
  for (let k = 0; k <= at; k++) for (const id of [...steps[k].nodes, ...steps[k].edges]) reached.set(id, k);
  const root = document.querySelector(`.level[data-level="${level}"]`), mark = `L${level}-`;
  for (const group of root.querySelectorAll("g.node, g.edge")) {
    const id = group.id.slice(mark.length), seen = reached.has(id);
    const late = group.classList.contains("gradient") || group.classList.contains("seed") ||
    group.classList.contains("sum"); group.classList.toggle("waiting", !seen && (!late || turned));
    group.classList.toggle("unseen", !seen && late && !turned);
    group.classList.toggle("now", reached.get(id) === at && at > 0);
  }
  const now = root.querySelector("g.node.now");
  if (now) now.scrollIntoView({block: "nearest", inline: "nearest"});
}
function go(to) {
  at = Math.max(0, Math.min(to, data.levels[level].steps.length - 1));
  show();
  if (timer && at === data.levels[level].steps.length - 1) play();
}
function play() {
  if (timer) { clearInterval(timer); timer = null; }
  else {
    if (at === data.levels[level].steps.length - 1) at = -1;
    timer = setInterval(() => go(at + 1), +$("speed").value);
  }
  $("play").textContent = timer ? "Pause" : "Play";
  $("play").setAttribute("aria-pressed", String(!!timer));
}
function choose(which) {
  level = which;
  for (const box of document.querySelectorAll(".level")) box.hidden = +box.dataset.level !== level;
  go(0);
}
function opened() {  // the next level with more detail
  return data.levels.filter(item => item.depth > data.levels[level].depth).sort((a, b) => a.depth - b.depth)[0];
}
function closed(group) {  // the level with most detail that closes this scope
  const depth = +(/\bdepth(\d+)/.exec(group.getAttribute("class")) || [0, 0])[1];
  return data.levels.filter(item => item.depth < depth).sort((a, b) => b.depth - a.depth)[0];
}
function turn(target, wanted) {  // to another level, at the step that shows the same
  const phase = data.levels[level].steps[at].phase === "backward" ? "backward" : "forward";
  const place = target.steps.findIndex(step => step.phase === phase && wanted(step));
  choose(target.id);
  $("level").value = target.id;
  go(place);
}
function jump(group) {
  const id = group.id.replace(/^L\d+-/, ""), steps = data.levels[level].steps;
  const places = steps.map((step, k) => step.nodes.includes(id) ? k : -1).filter(k => k >= 0);
  if (places.length) go(places.find(k => k > at) ?? places[0]);  // a second click goes on to the backward
  step
}
// The boxes are as wide as text in Helvetica, whose digits measure 0.556: a wider font is made smaller.
const pen = document.createElement("canvas").getContext("2d");
pen.font = "100px Helvetica, sans-serif";
const narrow = 556 / pen.measureText("0123456789").width;
if (narrow < 0.99) for (const text of document.querySelectorAll(".level svg text[font-size]"))
  text.setAttribute("font-size", narrow * parseFloat(text.getAttribute("font-size")));
data.levels.forEach(item => { const option = make("option", item.words); option.value = item.id;
$("level").append(option); }); for (const group of document.querySelectorAll(".level g.node")) {
  group.setAttribute("tabindex", "0");
  group.setAttribute("role", "button");
  group.setAttribute("aria-label", [...group.querySelectorAll("text")].map(t => t.textContent).join(", "));
  group.addEventListener("click", event => { event.preventDefault(); jump(group); });
  group.addEventListener("keydown", event => { if (event.key === "Enter") jump(group); });
}
for (const root of document.querySelectorAll(".level")) root.querySelectorAll("g.cluster").forEach((group, i) => {
  const target = closed(group), above = root.querySelectorAll("g.titles text")[i];
  if (!target) return;
  const name = above.textContent, close = () => turn(target, step => step.box && name.startsWith(step.box));
  group.setAttribute("tabindex", "0");
  group.setAttribute("role", "button");
  group.setAttribute("aria-label", `Close scope ${name}`);
  group.addEventListener("keydown", event => { if (event.key === "Enter") close(); });
  above.classList.add("closes");
  above.addEventListener("click", close);
});
$("first").onclick = () => go(0);
$("back").onclick = () => go(at - 1);
$("next").onclick = () => go(at + 1);
$("last").onclick = () => go(Infinity);
$("play").onclick = play;
$("speed").onchange = () => { if (timer) { play(); play(); } };
$("level").onchange = event => choose(+event.target.value);
$("theme").onclick = () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches, root = document.documentElement;
  const now = root.dataset.theme || (dark ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
};
document.addEventListener("keydown", event => {
  if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = {ArrowRight: () => go(at + 1), ArrowLeft: () => go(at - 1), Home: () => go(0), End: () =>
  go(Infinity)}; if (event.key === " " && event.target.tagName !== "BUTTON") keys[" "] = play;
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
choose(0);
</script>
</body>
</html>
"""
