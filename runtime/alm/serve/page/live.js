// The answer for those who listen to the page: words in groups, not piece by piece.

const PAUSE = 1500; // milliseconds between two groups

/** A live region that is told the answer as it grows. */
export class Live {
  constructor(region) {
    this.region = region;
    this.rest = "";
  }

  begin() {
    this.region.replaceChildren();
    this.rest = "";
    this.timer = setInterval(() => this._say(/\s\S*$/), PAUSE); // whole words
  }

  add(text) {
    this.rest += text;
  }

  end() {
    clearInterval(this.timer);
    this._say(/$/);
  }

  _say(cut) {
    const place = this.rest.search(cut);
    const said = this.rest.slice(0, Math.max(0, place)).trim();
    if (!said) return;
    const group = document.createElement("p");
    group.textContent = said;
    this.region.append(group);
    this.rest = this.rest.slice(place);
  }
}
