// Starts the page once its document stands.

applyTheme();
buildShell();
window.history.scrollRestoration = "manual"; // a page stands only after it was drawn
document.addEventListener("click", (event) => event.target.closest?.("a[href^='#']") && rememberPlace(), { capture: true });
addEventListener("hashchange", () => follow());
follow({ focus: false });
writeFooter().catch(() => {}); // the page itself says what is wrong
watchForNews();
