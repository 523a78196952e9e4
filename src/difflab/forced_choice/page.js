"use strict";
(() => {
  const GAP_MS = 300; // Between an answer and the next pair, so that a change is seen where two pairs are alike.
  const SCREEN = 512; // Pixels that a picture takes at most, where the window has them.
  const byId = (id) => document.getElementById(id);
  const page = JSON.parse(byId("page").textContent);
  const { protocol, trials } = page;
  const place = `difflab-fool-rate:${page.digest}`;
  const limit = protocol.seconds * 1000;
  const stage = byId("stage");
  const images = { left: byId("left"), right: byId("right"), low_res: byId("middle") };
  let kept = true;
  let state = restored() ?? fresh();
  let phase = "start"; // start, loading, choosing, paused, end
  let seen = null; // When the pair was seen last; state.seen_ms has what was before a pause.
  let turn = 0; // What a timer or a picture waits for is over when this has changed.
  let covered = false;

  function fresh() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return { sitting: Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join(""), rater: "", answers: [], seen_ms: 0 };
  }

  function restored() {
    try {
      const found = JSON.parse(localStorage.getItem(place));
      const whole = found && Array.isArray(found.answers) && found.answers.length <= trials.length;
      return whole && typeof found.sitting === "string" && typeof found.rater === "string" && Number.isFinite(found.seen_ms) ? found : null;
    } catch {
      return null;
    }
  }

  function keep() {
    try {
      localStorage.setItem(place, JSON.stringify(state));
    } catch {
      kept = false;
    }
    byId("unkept").hidden = kept;
  }

  function show(section) {
    for (const id of ["start", "trial", "pause", "end"]) byId(id).hidden = id !== section;
    const done = state.answers.length;
    byId("progress").max = trials.length;
    byId("progress").value = done;
    byId("done").textContent = `${done} of ${trials.length}`;
    byId("left_to_do").textContent = `${trials.length - done} pairs are left. Space or Enter goes on.`;
  }

  // Every picture takes the same room, whatever it has of pixels; a whole factor where there is room for one.
  function fit() {
    const [width, height] = page.size;
    const wide = (innerWidth - 40) / (protocol.task === 1 ? 3 : 2) - 28;
    const room = Math.min(wide / width, (innerHeight * 0.6) / height, Math.max(1, SCREEN / Math.max(width, height)));
    const factor = room >= 1 ? Math.floor(room) : Math.max(room, 1 / Math.max(width, height));
    for (const holder of Object.values(images)) {
      const image = holder.querySelector("img");
      image.style.width = `${Math.round(width * factor)}px`;
      image.style.height = `${Math.round(height * factor)}px`;
    }
  }

  function cover(hidden) {
    covered = hidden;
    stage.classList.toggle("gone", hidden);
  }

  const elapsed = () => state.seen_ms + (seen === null ? 0 : performance.now() - seen);

  async function present() {
    const mine = ++turn;
    const trial = trials[state.answers.length];
    phase = "loading";
    seen = null;
    cover(true);
    show("trial");
    stage.focus();
    byId("hint").textContent = state.answers.length < protocol.practice ? "This pair is for practice." : "";
    const shown = Object.entries(images).filter(([side]) => trial[side]);
    images.low_res.hidden = !trial.low_res;
    for (const [side, holder] of shown) holder.querySelector("img").src = trial[side];
    await Promise.all(shown.map(([, holder]) => holder.querySelector("img").decode()));
    setTimeout(() => mine === turn && reveal(mine), GAP_MS);
  }

  function reveal(mine) {
    phase = "choosing";
    seen = performance.now();
    const rest = limit - state.seen_ms;
    if (limit > 0 && rest <= 0) return gone();
    cover(false);
    if (limit > 0) setTimeout(() => mine === turn && gone(), rest);
  }

  function gone() {
    cover(true);
    byId("hint").textContent = "Which one was it? Left or right.";
  }

  function choose(side) {
    if (phase !== "choosing") return;
    state.answers.push({ choice: side, reaction_ms: Math.round(elapsed() * 10) / 10, timed_out: covered });
    state.seen_ms = 0;
    seen = null;
    keep();
    if (state.answers.length < trials.length) present();
    else finish(true);
  }

  function pause() {
    if (phase !== "choosing" && phase !== "loading") return;
    turn++;
    state.seen_ms = elapsed();
    seen = null;
    phase = "paused";
    cover(true);
    keep();
    show("pause");
    byId("resume").focus();
  }

  function begin() {
    if (phase !== "start") return;
    // Half of a character, as a field that is full leaves it of an emoji, is no text to who reads the results.
    state.rater = byId("rater").value.replace(/\p{Surrogate}/gu, "").trim();
    keep();
    present();
  }

  function resume() {
    if (phase === "paused") present();
  }

  function results() {
    const bytes = Uint8Array.from(atob(page.key), (c) => c.charCodeAt(0));
    const key = JSON.parse(new TextDecoder().decode(bytes));
    const answers = key.map((pair, trial) => ({ trial, ...pair, ...state.answers[trial] }));
    const { sitting, rater } = state;
    return { format: "difflab-fool-rate-1", page: page.digest, protocol, rater, sitting, trials: answers };
  }

  function finish(save) {
    turn++;
    phase = "end";
    show("end");
    const text = JSON.stringify(results(), null, 1);
    const link = byId("save");
    byId("results").value = text;
    link.href = `data:application/json;charset=utf-8,${encodeURIComponent(text)}`;
    link.download = `fool-rate-${page.digest.slice(0, 8)}-${state.sitting.slice(0, 8)}.json`;
    link.focus();
    if (save) link.click();
  }

  async function copy() {
    byId("results").select();
    try {
      await navigator.clipboard.writeText(byId("results").value);
      byId("copied").textContent = "Copied.";
    } catch {
      byId("copied").textContent = "The text is selected: copy it with the keyboard.";
    }
  }

  function next() {
    state = fresh();
    byId("rater").value = "";
    byId("copied").textContent = "";
    keep();
    welcome();
  }

  function welcome() {
    phase = "start";
    show("start");
    byId("begin").focus();
  }

  function pressed(event) {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const side = { ArrowLeft: "left", ArrowRight: "right" }[event.key];
    if (side && phase === "choosing") {
      event.preventDefault();
      choose(side);
    } else if (event.key === "Escape") {
      pause();
    } else if (event.key === "Enter" || event.key === " ") {
      // A button answers for itself, and a space is a letter of a name.
      if (event.target.tagName === "BUTTON" || (event.target.tagName === "INPUT" && event.key === " ")) return;
      if (phase !== "start" && phase !== "paused") return;
      event.preventDefault();
      if (phase === "start") begin();
      else resume();
    }
  }

  function describe() {
    for (const heading of document.querySelectorAll(".question")) heading.textContent = protocol.question;
    const time = limit > 0 ? ` Each pair is shown for ${protocol.seconds} s; you may answer after that.` : "";
    const first = protocol.practice > 0 ? ` The first ${protocol.practice} are for practice.` : "";
    const checks = protocol.checks > 0 ? " Some pairs only check that you are attending." : "";
    byId("how").textContent = `You will see ${trials.length} pairs of images.${time}${first}${checks}`;
  }

  describe();
  fit();
  keep();
  addEventListener("resize", fit);
  addEventListener("pagehide", pause);
  document.addEventListener("visibilitychange", () => document.hidden && pause());
  document.addEventListener("keydown", pressed);
  for (const side of ["left", "right"]) images[side].addEventListener("click", () => choose(side));
  byId("begin").addEventListener("click", begin);
  byId("resume").addEventListener("click", resume);
  byId("copy").addEventListener("click", copy);
  byId("next").addEventListener("click", next);
  if (state.answers.length === trials.length) finish(false);
  else if (state.answers.length > 0 || state.seen_ms > 0) {
    phase = "paused";
    show("pause");
    byId("resume").focus();
  } else welcome();
})();
