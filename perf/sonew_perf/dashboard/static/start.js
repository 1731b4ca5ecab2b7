// Starts the page once its document stands.

applyTheme();
buildShell();
addEventListener("hashchange", () => follow());
follow({ focus: false });
writeFooter().catch(() => {}); // the page itself says what is wrong
watchForNews();
