// <vsr-tabs tabs="[{label, panel}, …]">: a row of tabs, each of which shows one part of the page, by its id.
// <vsr-fold panel="ID">Words</vsr-fold>: a button that unfolds a part of the page.
// Gradio builds the fields of its own tabs and folds when they are first opened, and a moment later gives each its first
// value again: a file chosen in between is lost. These only hide what is there from the beginning. The state is kept
// at the page's root, as Gradio sets the classes of its parts anew.
(() => {
  if (customElements.get("vsr-tabs")) return;

  const root = document.documentElement;
  const style = document.head.appendChild(document.createElement("style"));
  style.textContent = `
    html:not([data-vsr-tab]) .vsr-panel { display: none !important; }
    .vsr-tabs { display: flex; gap: 4px; overflow-x: auto; border-bottom: 1px solid var(--border-color-primary); }
    .vsr-tabs button { margin: 0 !important; padding: 10px 14px; border: 0; border-bottom: 3px solid transparent; background: none; font: inherit;
      color: var(--vsr-quiet); cursor: pointer; }
    .vsr-tabs button:hover { color: var(--body-text-color); }
    .vsr-tabs button[aria-selected=true] { color: var(--color-accent); border-bottom-color: var(--color-accent);
      font-weight: 600; }
    button.vsr-fold { width: 100%; padding: 9px 12px; border: 1px solid var(--border-color-primary); border-radius: 8px;
      background: var(--background-fill-secondary); color: inherit; font: inherit; text-align: left; cursor: pointer; }
    button.vsr-fold::before { content: "▸"; display: inline-block; width: 1.2em; }
    button.vsr-fold[aria-expanded=true]::before { content: "▾"; }
    .vsr-tabs button:focus-visible, .vsr-fold:focus-visible { outline: 3px solid var(--color-accent); outline-offset: -3px; }
  `;

  const button = (host, label) => {
    const made = host.appendChild(document.createElement("button"));
    made.type = "button";
    made.textContent = label;
    return made;
  };

  class Tabs extends HTMLElement {
    connectedCallback() {
      if (this.firstElementChild) return;
      this.tabs = JSON.parse(this.getAttribute("tabs"));
      this.list = this.appendChild(document.createElement("div"));
      this.list.className = "vsr-tabs";
      this.list.setAttribute("role", "tablist");
      this.tabs.forEach(({ label, panel }, place) => {
        style.textContent += `html[data-vsr-tab]:not([data-vsr-tab="${panel}"]) #${panel} { display: none !important; }`;
        const tab = button(this.list, label);
        tab.setAttribute("role", "tab");
        tab.setAttribute("aria-controls", panel);
        tab.addEventListener("click", () => this.select(place));
      });
      this.list.addEventListener("keydown", (event) => this.move(event));
      this.select(Math.max(0, this.tabs.findIndex(({ panel }) => panel === root.dataset.vsrTab)));
    }

    select(place) {
      this.place = place;
      root.dataset.vsrTab = this.tabs[place].panel;
      document.getElementById(root.dataset.vsrTab)?.setAttribute("role", "tabpanel");
      [...this.list.children].forEach((tab, index) => {
        tab.setAttribute("aria-selected", index === place);
        tab.tabIndex = index === place ? 0 : -1;
      });
    }

    move(event) {
      const last = this.tabs.length - 1;
      const to = { ArrowLeft: this.place - 1, ArrowRight: this.place + 1, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.select(to < 0 ? last : to > last ? 0 : to);
      this.list.children[this.place].focus();
    }
  }

  class Fold extends HTMLElement {
    connectedCallback() {
      if (this.firstElementChild) return;
      const panel = this.getAttribute("panel");
      const open = `data-vsr-open-${panel}`;
      style.textContent += `html:not([${open}]) #${panel} { display: none !important; }`;
      const label = this.textContent.trim();
      this.textContent = "";
      const fold = button(this, label);
      fold.className = "vsr-fold";
      fold.setAttribute("aria-controls", panel);
      fold.setAttribute("aria-expanded", root.hasAttribute(open));
      fold.addEventListener("click", () => fold.setAttribute("aria-expanded", root.toggleAttribute(open)));
    }
  }

  customElements.define("vsr-tabs", Tabs);
  customElements.define("vsr-fold", Fold);
})();
