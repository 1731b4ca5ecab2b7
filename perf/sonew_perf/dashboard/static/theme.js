// Light, dark or as the system has it: from ?theme=, else as chosen before, else the system's.

const THEMES = ["system", "light", "dark"];
const darkSystem = matchMedia("(prefers-color-scheme: dark)");
let theme = firstTheme();

function firstTheme() {
  const asked = new URLSearchParams(location.search).get("theme");
  if (THEMES.includes(asked)) return asked;
  try {
    const chosen = localStorage.getItem("sonew-theme");
    return THEMES.includes(chosen) ? chosen : "system";
  } catch {
    return "system"; // a document opened from disk may have no storage
  }
}

function applyTheme() {
  const root = document.documentElement;
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
}

function chooseTheme(next) {
  theme = next;
  applyTheme();
  try {
    localStorage.setItem("sonew-theme", theme);
    const asked = new URL(location.href);
    if (asked.searchParams.has("theme")) {
      asked.searchParams.set("theme", theme);
      window.history.replaceState(null, "", asked);
    }
  } catch {
    // the choice lasts as long as the page
  }
  redrawCharts();
}

// Paper is light, and so are the charts on it.
addEventListener("beforeprint", () => {
  document.documentElement.dataset.theme = "light";
  redrawCharts();
});
addEventListener("afterprint", () => {
  applyTheme();
  redrawCharts();
});

const themeTitle = () => `Colours: ${theme === "system" ? "as the system has them" : theme}`;

function themeButton() {
  const button = h("button", { type: "button", class: "tool", id: "theme", click: cycle });
  const show = () => {
    button.replaceChildren(icon(theme));
    button.setAttribute("aria-label", `${themeTitle()}. Change.`);
    button.title = themeTitle();
  };
  function cycle() {
    chooseTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
    show();
    announce(themeTitle());
  }
  show();
  return button;
}

const COLOURS = [
  "card",
  "ink",
  "muted",
  "line",
  "grid",
  "link",
  "faster",
  "slower",
  "faster-ink",
  "slower-ink",
  "failed",
  "series",
  "band",
  "level",
  "hue-1",
  "hue-2",
  "hue-3",
  "hue-4",
  "hue-5",
  "hue-6",
  "hue-7",
  "hue-8",
];

// {name: "rgb(…)"} of the style sheet's variables in the theme that is shown now.
function palette() {
  const probe = h("span", { hidden: true });
  document.body.append(probe);
  const found = {};
  for (const name of COLOURS) {
    probe.style.color = `var(--${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}
