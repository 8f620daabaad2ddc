// <vsr-viewer kind="image|video" before="URL" after="URL" before-label="…" after-label="…">
// Shows two images, or two videos in step, on both sides of a line that moves by mouse, finger and arrow keys.
// With choices="[{label, address}, …]" left="0" right="1" instead, the two sides are chosen from a list.
(() => {
  if (customElements.get("vsr-viewer")) return;

  const STYLE = `
    :host { display: block; color: var(--body-text-color, #1f2937); font: inherit; }
    .stage { position: relative; overflow: hidden; border-radius: 10px; background: #101318; touch-action: pan-y;
      aspect-ratio: var(--shape, 16 / 9); max-height: min(70vh, 720px); margin: 0 auto; max-width: 100%; cursor: ew-resize; }
    .stage.zoomed { cursor: grab; touch-action: none; }
    .stage:fullscreen { max-height: none; width: 100vw; height: 100vh; border-radius: 0; }
    .content { position: absolute; inset: 0; transform-origin: 0 0; }
    .content > * { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; display: block;
      user-select: none; -webkit-user-drag: none; }
    .alpha { background: repeating-conic-gradient(#8a8f98 0% 25%, #b9bec7 0% 50%) 0 0 / 18px 18px; }
    .line { position: absolute; top: 0; bottom: 0; left: var(--cut); width: 44px; margin-left: -22px; cursor: ew-resize;
      touch-action: none; }
    .line::before { content: ""; position: absolute; left: 21px; width: 2px; top: 0; bottom: 0; background: #fff;
      box-shadow: 0 0 4px #000a; }
    .line::after { content: ""; position: absolute; top: calc(50% - 18px); left: 4px; width: 36px; height: 36px;
      border-radius: 50%; box-shadow: 0 1px 6px #0008; background: #fff center / 24px no-repeat url("data:image/svg+xml,\
%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'%3E%3Cpath d='M9 6v12l-7-6zM15 6v12l7-6z'/%3E%3C/svg%3E"); }
    .tag { position: absolute; top: 10px; padding: 3px 9px; border-radius: 6px; background: #000a; color: #fff;
      font-size: 12px; line-height: 1.4; pointer-events: none; max-width: 45%; }
    .tag.b { left: 10px; } .tag.a { right: 10px; }
    .bar { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin-top: 8px; font-size: 14px; }
    .bar label { display: flex; gap: 8px; align-items: center; flex: 1 1 110px; min-width: 0; }
    input[type=range] { flex: 1; min-width: 60px; height: 32px; margin: 0; appearance: none; background: none; cursor: pointer; }
    input[type=range]::-webkit-slider-runnable-track { height: 6px; border-radius: 3px; background: #94a3b8; }
    input[type=range]::-moz-range-track { height: 6px; border-radius: 3px; background: #94a3b8; }
    input[type=range]::-webkit-slider-thumb { appearance: none; width: 20px; height: 20px; margin-top: -7px;
      border-radius: 50%; background: #0f766e; border: 2px solid #fff; box-shadow: 0 0 3px #0008; }
    input[type=range]::-moz-range-thumb { width: 16px; height: 16px; border-radius: 50%; background: #0f766e;
      border: 2px solid #fff; box-shadow: 0 0 3px #0008; }
    select { flex: 1; min-width: 0; height: 36px; border-radius: 8px; font: inherit; color: inherit; padding: 0 8px;
      border: 1px solid var(--border-color-primary, #cbd5e1); background: var(--input-background-fill, #fff); }
    button { min-width: 38px; height: 36px; padding: 0 8px; border-radius: 8px; font: inherit; cursor: pointer;
      border: 1px solid var(--border-color-primary, #cbd5e1); color: inherit;
      background: var(--button-secondary-background-fill, #f1f5f9); }
    button svg { display: block; fill: currentColor; }
    button:focus-visible, select:focus-visible, input:focus-visible, .stage:focus-visible { outline: 3px solid var(--color-accent, #0f766e);
      outline-offset: 2px; }
    .time { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
    .words { margin: 8px 0 0; font-size: 14px; }
    .words:empty { display: none; }
  `;

  // Drawn, as not every system has a font with these signs.
  const icon = (path) => `<svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true"><path d="${path}"/></svg>`;
  const ICONS = {
    play: icon("M7 4v16l13-8z"),
    pause: icon("M6 4h4v16H6zM14 4h4v16h-4z"),
    sound: icon("M4 9v6h4l5 5V4L8 9zM16 8a5 5 0 0 1 0 8v-2a3 3 0 0 0 0-4z"),
    muted: icon("M4 9v6h4l5 5V4L8 9zM16 9l5 6h-2l-5-6zM19 9h2l-5 6h-2z"),
    full: icon("M4 4h6v2H6v4H4zM14 4h6v6h-2V6h-4zM4 14h2v4h4v2H4zM18 14h2v6h-6v-2h4z"),
  };

  const clock = (seconds) => {
    const whole = Number.isFinite(seconds) ? Math.floor(seconds) : 0;
    return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
  };

  class Viewer extends HTMLElement {
    connectedCallback() {
      if (this.shadowRoot) return;
      this.isVideo = this.getAttribute("kind") === "video";
      this.cut = 50;
      this.zoom = 1;
      this.shift = [0, 0];
      this.attachShadow({ mode: "open" }).innerHTML = this.markup();
      this.find = (name) => this.shadowRoot.querySelector(name);
      this.stage = this.find(".stage");
      this.content = this.find(".content");
      this.before = this.find(".before");
      this.after = this.find(".after");
      if (this.hasAttribute("choices")) this.offerChoices(JSON.parse(this.getAttribute("choices")));
      else for (const side of ["before", "after"])
        this.show(side, this.getAttribute(side), this.getAttribute(`${side}-label`) || side);
      this.after.addEventListener(this.isVideo ? "loadedmetadata" : "load", () => this.takeShape());
      this.before.addEventListener("error", () => this.say("This browser cannot show the original."));
      this.after.addEventListener("error", () => this.say("This browser cannot show the result; download it."));
      this.find(".cut").addEventListener("input", (event) => this.moveLine(+event.target.value));
      this.listenToPointer();
      this.listenToButtons();
      if (this.isVideo) this.listenToVideo();
      this.moveLine(50);
    }

    disconnectedCallback() {
      cancelAnimationFrame(this.ticking);
    }

    markup() {
      const [media, end] = this.isVideo ? ["video playsinline preload=auto", "</video>"] : ["img draggable=false", ""];
      const words = (side) => (this.isVideo ? `aria-label="${side}"` : `alt="${side}"`);
      const play = `
        <div class="bar">
          <button class="play" aria-label="Play">${ICONS.play}</button>
          <label>
            <input class="seek" type="range" min="0" max="1000" value="0" aria-label="Position in the video"></label>
          <span class="time">0:00 / 0:00</span>
          <button class="mute" aria-label="Mute" aria-pressed="false">${ICONS.sound}</button>
        </div>`;
      return `<style>${STYLE}</style>
        <div class="stage" tabindex="0" role="group" aria-label="Before and after; arrow keys move the line, + and - zoom">
          <div class="content ${this.isVideo ? "" : "alpha"}">
            <${media} class="before" ${words("Before")} ${this.isVideo ? "muted" : ""}>${end}
            <${media} class="after" ${words("After")}>${end}
          </div>
          <div class="tag b"></div><div class="tag a"></div><div class="line"></div>
        </div>
        ${this.isVideo ? play : ""}
        <div class="bar">
          <label>Line <input class="cut" type="range" min="0" max="100" step="0.5" value="50"
            aria-label="Line between before and after"></label>
          <button class="out" aria-label="Zoom out">−</button>
          <button class="fit" aria-label="Fit">Fit</button>
          <button class="in" aria-label="Zoom in">+</button>
          <button class="full" aria-label="Full screen">${ICONS.full}</button>
        </div>
        <p class="words" role="status"></p>`;
    }

    show(side, address, label) {
      this[side].src = address;
      this.find(`.tag.${side[0]}`).textContent = label;
    }

    offerChoices(choices) {
      const bar = document.createElement("div");
      bar.className = "bar";
      for (const [side, attribute, words] of [["before", "left", "Left"], ["after", "right", "Right"]]) {
        const select = document.createElement("select");
        select.className = attribute;
        for (const [number, { label }] of choices.entries()) select.add(new Option(label, number));
        const choose = () => this.show(side, choices[select.value].address, choices[select.value].label);
        select.value = this.getAttribute(attribute);
        select.addEventListener("change", choose);
        choose();
        const label = document.createElement("label");
        label.append(words, " ", select);
        bar.append(label);
      }
      this.stage.before(bar);
      bar.style.margin = "0 0 8px";
    }

    say(text) {
      this.find(".words").textContent = text;
    }

    takeShape() {
      const width = this.after.videoWidth || this.after.naturalWidth;
      const height = this.after.videoHeight || this.after.naturalHeight;
      if (!width || !height) return;
      this.stage.style.setProperty("--shape", `${width} / ${height}`);
      // max-height alone would break the shape of tall images: bound the width by it too.
      this.stage.style.width = `min(100%, ${width / height} * min(70vh, 720px))`;
    }

    moveLine(percent) {
      this.cut = Math.min(100, Math.max(0, percent));
      this.find(".cut").value = this.cut;
      this.draw();
    }

    draw() {
      const { clientWidth: width, clientHeight: height } = this.stage;
      this.shift = this.shift.map((value, axis) => Math.min(0, Math.max([width, height][axis] * (1 - this.zoom), value)));
      const [x, y] = this.shift;
      this.content.style.transform = `translate(${x}px, ${y}px) scale(${this.zoom})`;
      // The line stands still while the content moves under it: its place is counted on the stage.
      const onContent = width ? (((this.cut / 100) * width - x) / (width * this.zoom)) * 100 : this.cut;
      this.after.style.clipPath = `inset(0 0 0 ${Math.min(100, Math.max(0, onContent))}%)`;
      // A transparent result must not let the original show through on its side.
      this.before.style.clipPath = `inset(0 ${Math.min(100, Math.max(0, 100 - onContent))}% 0 0)`;
      this.stage.style.setProperty("--cut", `${this.cut}%`);
      this.stage.classList.toggle("zoomed", this.zoom > 1);
      this.after.style.imageRendering = this.before.style.imageRendering = this.zoom > 4 ? "pixelated" : "auto";
    }

    zoomTo(zoom, centre) {
      const box = this.stage.getBoundingClientRect();
      const [cx, cy] = centre || [box.width / 2, box.height / 2];
      const next = Math.min(16, Math.max(1, zoom));
      this.shift = [cx - ((cx - this.shift[0]) * next) / this.zoom, cy - ((cy - this.shift[1]) * next) / this.zoom];
      this.zoom = next;
      this.draw();
    }

    listenToPointer() {
      let drag = null;
      const place = (event) => {
        const box = this.stage.getBoundingClientRect();
        return [event.clientX - box.left, event.clientY - box.top, box.width];
      };
      this.stage.addEventListener("pointerdown", (event) => {
        const onLine = event.target.classList.contains("line") || this.zoom === 1;
        drag = { onLine, from: [event.clientX, event.clientY], shift: [...this.shift] };
        this.stage.setPointerCapture(event.pointerId);
        if (onLine) this.moveLine((place(event)[0] / place(event)[2]) * 100);
      });
      this.stage.addEventListener("pointermove", (event) => {
        if (!drag) return;
        if (drag.onLine) return this.moveLine((place(event)[0] / place(event)[2]) * 100);
        this.shift = [drag.shift[0] + event.clientX - drag.from[0], drag.shift[1] + event.clientY - drag.from[1]];
        this.draw();
      });
      for (const end of ["pointerup", "pointercancel"]) this.stage.addEventListener(end, () => (drag = null));
      this.stage.addEventListener("wheel", (event) => {
        if (!event.ctrlKey && this.zoom === 1) return; // the page scrolls
        event.preventDefault();
        this.zoomTo(this.zoom * Math.exp(-event.deltaY / 300), place(event).slice(0, 2));
      }, { passive: false });
      this.stage.addEventListener("dblclick", (event) =>
        this.zoomTo(this.zoom > 1 ? 1 : 4, place(event).slice(0, 2)));
      new ResizeObserver(() => this.draw()).observe(this.stage);
    }

    listenToButtons() {
      const on = (name, act) => this.find(name).addEventListener("click", act);
      on(".in", () => this.zoomTo(this.zoom * 1.5));
      on(".out", () => this.zoomTo(this.zoom / 1.5));
      on(".fit", () => this.zoomTo(1));
      on(".full", () => (document.fullscreenElement ? document.exitFullscreen() : this.stage.requestFullscreen()));
      this.stage.addEventListener("keydown", (event) => {
        const step = event.shiftKey ? 10 : 2;
        const keys = {
          ArrowLeft: () => this.moveLine(this.cut - step),
          ArrowRight: () => this.moveLine(this.cut + step),
          Home: () => this.moveLine(0),
          End: () => this.moveLine(100),
          "+": () => this.zoomTo(this.zoom * 1.5),
          "-": () => this.zoomTo(this.zoom / 1.5),
          0: () => this.zoomTo(1),
          " ": () => this.isVideo && this.toggle(),
        };
        if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        keys[event.key]();
      });
    }

    // -- video: the result has the sound and the clock, the original follows ---------------------------------------

    listenToVideo() {
      this.before.muted = true; // the attribute alone counts only for markup that the parser reads
      this.find(".play").addEventListener("click", () => this.toggle());
      this.find(".seek").addEventListener("input", (event) => {
        this.after.currentTime = (event.target.value / 1000) * (this.after.duration || 0);
        this.before.currentTime = this.after.currentTime;
      });
      this.find(".mute").addEventListener("click", (event) => {
        this.after.muted = !this.after.muted;
        event.currentTarget.innerHTML = this.after.muted ? ICONS.muted : ICONS.sound;
        event.currentTarget.setAttribute("aria-pressed", String(this.after.muted));
      });
      for (const name of ["play", "pause", "ended"]) this.after.addEventListener(name, () => this.followState());
      for (const name of ["seeked", "loadedmetadata", "timeupdate"])
        this.after.addEventListener(name, () => this.followTime());
    }

    toggle() {
      if (this.after.paused) this.after.play().catch(() => this.say("This browser cannot play the result; download it."));
      else this.after.pause();
    }

    followState() {
      const isPlaying = !this.after.paused && !this.after.ended;
      this.find(".play").innerHTML = isPlaying ? ICONS.pause : ICONS.play;
      this.find(".play").setAttribute("aria-label", isPlaying ? "Pause" : "Play");
      if (isPlaying) this.before.play().catch(() => {});
      else this.before.pause();
      cancelAnimationFrame(this.ticking);
      const tick = () => {
        this.followTime();
        this.ticking = requestAnimationFrame(tick);
      };
      if (isPlaying) tick();
      else this.followTime();
    }

    followTime() {
      const { currentTime: now, duration, paused } = this.after;
      // A frame's length while both stand; while they play, a jump would stutter, so only a visible lag is mended.
      const lag = Math.abs(this.before.currentTime - now);
      if (!this.before.seeking && lag > (paused ? 0.005 : 0.12)) this.before.currentTime = now;
      this.find(".seek").value = duration ? (now / duration) * 1000 : 0;
      this.find(".time").textContent = `${clock(now)} / ${clock(duration)}`;
    }
  }

  customElements.define("vsr-viewer", Viewer);
})();
