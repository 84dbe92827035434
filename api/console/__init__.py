"""The pages: rendered on the server, English and German, strict CSP, no build step. `pages.render` makes every one."""
