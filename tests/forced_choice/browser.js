// As much of a browser as a page of `difflab fool-rate page` uses, with a clock of its own.
// node browser.js PAGE < actions: JSON [[what, argument], ...]; prints what was seen at every "look".
"use strict";
const fs = require("node:fs");
const vm = require("node:vm");

const html = fs.readFileSync(process.argv[2], "utf8");
const actions = JSON.parse(fs.readFileSync(0, "utf8"));
const script = html.match(/<script>([^]*)<\/script>/)[1];
const stored = new Map();
const downloads = [];
let now = 0;
let storage = true;
let world;

function element(tag, id) {
  const handlers = {};
  const classes = new Set();
  const image = tag === "img" ? null : { style: {}, src: "", decode: () => Promise.resolve() };
  return {
    id, tagName: tag.toUpperCase(), hidden: false, textContent: "", value: "", style: {}, image, handlers,
    classList: { toggle: (name, on) => (on ? classes.add(name) : classes.delete(name)), has: (name) => classes.has(name) },
    querySelector: () => image,
    addEventListener: (name, handler) => (handlers[name] = handler),
    focus() { world.focused = this; },
    select() {},
    click() { if (tag === "a") downloads.push({ name: this.download, href: this.href }); else handlers.click?.(); },
  };
}

function load() {
  const elements = {};
  for (const [, tag, id] of html.matchAll(/<(\w+)[^>]*? id="(\w+)"/g)) elements[id] = element(tag, id);
  elements.page.textContent = html.match(/id="page">([^]*?)<\/script>/)[1];
  const questions = [...html.matchAll(/class="question"/g)].map(() => element("h1"));
  const handlers = {};
  world = { elements, questions, handlers, timers: [], focused: elements.begin, hidden: false };
  const refuse = () => { throw new Error("no storage"); };
  const document = {
    getElementById: (id) => elements[id],
    querySelectorAll: () => questions,
    addEventListener: (name, handler) => (handlers[name] = handler),
    get hidden() { return world.hidden; },
  };
  const here = world;
  vm.runInNewContext(script, {
    document, crypto, atob, TextDecoder, Uint8Array, innerWidth: 1000, innerHeight: 800, navigator: {},
    performance: { now: () => now },
    localStorage: {
      getItem: (key) => (storage ? stored.get(key) ?? null : refuse()),
      setItem: (key, value) => (storage ? stored.set(key, value) : refuse()),
    },
    addEventListener: (name, handler) => (handlers[name] = handler),
    setTimeout: (what, after) => here.timers.push({ what, at: now + after }),
  });
}

const settled = () => new Promise((done) => setImmediate(done));

async function wait(ms) {
  const until = now + ms;
  for (;;) {
    await settled();
    const due = world.timers.filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at)[0];
    if (!due) break;
    now = Math.max(now, due.at);
    world.timers.splice(world.timers.indexOf(due), 1);
    due.what();
  }
  now = until;
}

function look() {
  const { elements, questions, focused } = world;
  const section = ["start", "trial", "pause", "end"].filter((id) => !elements[id].hidden).join(" ");
  const sides = Object.fromEntries(["left", "middle", "right"].map((id) => [id, elements[id].image]));
  return {
    section, focused: focused.id, question: questions[0].textContent, how: elements.how.textContent,
    gone: elements.stage.classList.has("gone"), hint: elements.hint.textContent, done: elements.done.textContent,
    shown: Object.fromEntries(Object.entries(sides).map(([id, image]) => [id, image.src])),
    sizes: Object.fromEntries(Object.entries(sides).map(([id, image]) => [id, [image.style.width, image.style.height]])),
    middle_hidden: elements.middle.hidden, unkept: !elements.unkept.hidden, text: elements.results.value, downloads,
  };
}

function key(name, more = {}) {
  const target = world.focused;
  const event = { key: name, target, preventDefault() { this.prevented = true; }, ...more };
  world.handlers.keydown(event);
  const button = target.tagName === "BUTTON" && (name === "Enter" || name === " ");
  if (button && !event.prevented && !event.repeat) target.handlers.click?.();
}

const doing = {
  key, wait, load,
  held: (name) => key(name, { repeat: true }),
  control: (name) => key(name, { ctrlKey: true }),
  click: (id) => world.elements[id].click(),
  focus: (id) => world.elements[id].focus(),
  name: (text) => (world.elements.rater.value = text),
  reload() { world.handlers.pagehide(); load(); },
  storage: (on) => (storage = on),
  store: (text) => stored.set(`difflab-fool-rate:${JSON.parse(world.elements.page.textContent).digest}`, text),
  hide() { world.hidden = true; world.handlers.visibilitychange(); world.hidden = false; },
};

(async () => {
  const seen = [];
  for (const [what, argument] of actions) {
    if (what === "look") seen.push(JSON.parse(JSON.stringify(look())));
    else await doing[what](argument);
    await settled();
  }
  process.stdout.write(JSON.stringify(seen));
})();
