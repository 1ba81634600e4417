// What the page does. The person file lives in this tab and travels with every order; the server keeps nothing.
"use strict";

const harald = {
  person: null, // {blob, groups, references}
  chosen: [], // pictures that wait to be read
  running: null, // AbortController of the request under way

  start(card) {
    const get = (id) => card.querySelector("#" + id);
    this.most = Number(card.dataset.most);
    this.bytes = Number(card.dataset.bytes);
    if (get("pictures")) {
      const drop = card.querySelector(".drop");
      get("pictures").onchange = (event) => {
        this.choose([...event.target.files]);
        event.target.value = "";
      };
      drop.ondragover = (event) => event.preventDefault() || drop.classList.add("over");
      drop.ondragleave = () => drop.classList.remove("over");
      drop.ondrop = (event) => {
        event.preventDefault();
        drop.classList.remove("over");
        this.choose([...event.dataTransfer.files]);
      };
      drop.onkeydown = (event) => ["Enter", " "].includes(event.key) && get("pictures").click();
      get("consent").onchange = () => this.ready();
      get("read").onclick = () => this.read();
      this.thumbs();
    }
    get("person-file").onchange = (event) => {
      const [file] = event.target.files;
      event.target.value = "";
      if (file) this.inspect(file);
    };
    get("forget").onclick = () => this.forget();
    card.inert = false;
    if (this.person) this.use(this.person.blob, this.person);
  },

  choose(files) {
    this.say("person-state", "");
    const usable = files.filter((file) => file.size <= this.bytes);
    if (usable.length < files.length) this.say("person-state", "A picture is too large and was left out.", true);
    if (this.chosen.length + usable.length > this.most)
      this.say("person-state", `At most ${this.most} pictures are read; the first ones stay.`, true);
    this.chosen = [...this.chosen, ...usable].slice(0, this.most);
    this.thumbs();
  },

  thumbs() {
    const thumbs = document.getElementById("thumbs");
    for (const image of thumbs.querySelectorAll("img")) URL.revokeObjectURL(image.src);
    thumbs.replaceChildren(
      ...this.chosen.map((file, index) => {
        const button = document.createElement("button");
        const image = document.createElement("img");
        image.src = URL.createObjectURL(file);
        image.alt = `Picture ${index + 1}`;
        image.onerror = () => button.classList.add("unseen"); // the server says what is wrong with it
        button.append(image);
        button.title = "Remove";
        button.setAttribute("aria-label", `Remove picture ${index + 1}`);
        button.onclick = () => {
          this.chosen.splice(index, 1);
          this.thumbs();
        };
        return button;
      }),
    );
    this.ready();
  },

  ready() {
    const read = document.getElementById("read");
    if (read) read.disabled = !(this.chosen.length && document.getElementById("consent").checked && !this.running);
    const draw = document.querySelector("button#draw, #draw button");
    if (draw) draw.textContent = this.running ? "Stop" : "Draw";
  },

  async read() {
    const form = new FormData();
    form.append("consent", "yes");
    for (const file of this.chosen) form.append("pictures", file, "picture");
    const answer = await this.ask("/api/person", form, "person-state");
    if (!answer) return;
    const bytes = Uint8Array.from(atob(answer.person), (letter) => letter.charCodeAt(0));
    this.chosen = [];
    this.thumbs();
    this.use(new Blob([bytes], { type: "application/octet-stream" }), answer);
  },

  async inspect(file) {
    const form = new FormData();
    form.append("person", file, "person");
    const answer = await this.ask("/api/inspect", form, "person-state");
    if (answer) this.use(file, answer);
  },

  use(blob, { groups, references }) {
    this.person = { blob, groups, references };
    document.getElementById("who").textContent =
      references === 1 ? "A person, from 1 picture." : `A person, from ${references} pictures.`;
    document.getElementById("save").href = URL.createObjectURL(blob);
    this.swap(true);
    this.press("show-looks");
  },

  forget() {
    URL.revokeObjectURL(document.getElementById("save").href);
    this.person = null;
    this.swap(false);
    this.press("hide-looks");
  },

  swap(known) {
    document.getElementById("choose").hidden = known;
    document.getElementById("chosen").hidden = !known;
  },

  press(id) {
    (document.querySelector(`button#${id}, #${id} button`)).click();
  },

  // What Gradio shows of the person: the panel, and one box for each of the person's groups.
  looks() {
    const groups = this.person ? this.person.groups : [];
    return [
      { __type__: "update", visible: this.person !== null },
      { __type__: "update", choices: groups.map((name) => [name, name]), value: groups },
    ];
  },

  async draw(prompt, domain, seed, keep, strength, compare) {
    if (this.running) return this.running.abort();
    const form = new FormData();
    const fields = { prompt, domain, seed: seed ?? 0, keep: keep.join(","), strength, compare };
    for (const [name, value] of Object.entries(fields)) form.append(name, String(value));
    if (this.person) form.append("person", this.person.blob, "person");
    const answer = await this.ask("/api/draw", form, "draw-state");
    if (!answer) return;
    this.show(answer.pictures, seed ?? 0);
    const gone = answer.left_out;
    if (gone.length) this.say("draw-state", `Taken from the prompt's words, not from the person: ${gone.join(", ")}.`);
  },

  show(pictures, seed) {
    const captions = this.person ? ["with the person", "without: the word alone"] : ["from text alone"];
    document.getElementById("pictures-drawn").replaceChildren(
      ...pictures.map((picture, index) => {
        const figure = document.createElement("figure");
        const image = document.createElement("img");
        const caption = document.createElement("figcaption");
        const save = document.createElement("a");
        image.src = save.href = "data:image/png;base64," + picture;
        image.alt = caption.textContent = captions[index];
        save.download = `seed_${seed}${index ? "_without" : ""}.png`;
        save.textContent = "Save";
        caption.append(save);
        figure.append(image, caption);
        return figure;
      }),
    );
  },

  // One request; null if it failed, and then the reason stands in the element `where`.
  async ask(url, form, where) {
    if (this.running) return null;
    this.running = new AbortController();
    this.ready();
    document.getElementById("pictures-drawn").classList.toggle("old", where === "draw-state");
    this.say(where, "Sending ...");
    try {
      const response = await fetch(url, { method: "POST", body: form, signal: this.running.signal });
      const answer = await this.follow(response, where);
      this.say(where, answer.error || "", Boolean(answer.error));
      return answer.error ? null : answer;
    } catch (error) {
      const text = error.name === "AbortError" ? "Stopped." : "The connection was lost. Try again.";
      this.say(where, text, error.name !== "AbortError");
      return null;
    } finally {
      this.running = null;
      this.ready();
      document.getElementById("pictures-drawn").classList.remove("old");
    }
  },

  // The last line of an answer; those before it are shown as they come.
  async follow(response, where) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      text += value || "";
      const lines = text.split("\n");
      if (done) return JSON.parse(lines.filter(Boolean).at(-1));
      if (lines.length > 1) {
        const state = JSON.parse(lines.at(-2));
        if ("waiting" in state) this.say(where, `In line: ${state.waiting} before you, ${state.of} in all.`);
        if ("progress" in state) this.bar(where, state.progress);
        text = lines.slice(-2).join("\n");
      }
    }
  },

  say(where, text, isError = false) {
    const state = document.getElementById(where);
    state.textContent = text;
    state.classList.toggle("error", isError);
  },

  bar(where, share) {
    let bar = document.getElementById(where).querySelector("progress");
    if (!bar) {
      this.say(where, "");
      bar = document.createElement("progress");
      bar.setAttribute("aria-label", "progress");
      document.getElementById(where).replaceChildren(bar);
    }
    if (share) bar.value = share;
  },
};

// Gradio draws the card before or after this script is there, and may draw it anew: every card is brought to life, with
// what was chosen so far.
const bringToLife = () => {
  const card = document.querySelector("#person .card[inert]");
  if (card) harald.start(card);
};
new MutationObserver(bringToLife).observe(document, { childList: true, subtree: true });
bringToLife();
