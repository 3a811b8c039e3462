"use strict";
// Shows or saves a file that this page holds; the address after # names it, so that going back works.
(() => {
  const dialog = document.getElementById("shown");
  const page = document.getElementById("shown-page");
  const unpacked = async (name) => {
    const held = [...document.querySelectorAll("script[data-file]")].find((one) => one.dataset.file === name);
    if (!held) return null;
    const bytes = Uint8Array.from(atob(held.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).blob();
  };
  const show = async () => {
    const name = location.hash.startsWith("#file=") ? decodeURIComponent(location.hash.slice(6)) : "";
    if (!name) { if (dialog.open) dialog.close(); return; }
    const blob = await unpacked(name);
    if (!blob) return;
    if (name.endsWith(".html")) {
      page.srcdoc = await blob.text();
      document.getElementById("shown-name").textContent = name;
      if (!dialog.open) dialog.showModal();
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name.split("/").pop();
    link.click();
    URL.revokeObjectURL(link.href);
    history.replaceState(null, "", "#files");
  };
  dialog.addEventListener("close", () => { page.srcdoc = ""; if (location.hash.startsWith("#file=")) history.replaceState(null, "", "#files"); });
  addEventListener("hashchange", show);
  show();
})();
