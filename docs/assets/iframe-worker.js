// The search runs in a Worker, which a page opened as a file may not start. There a hidden frame takes its place: the same
// script, with messages handed over by hand.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = this.onerror = this.onmessageerror = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      inner.document.open();
      inner.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.onmessage?.(event);
        this.dispatchEvent(event);
      };
      this.ready = new Promise((resolve, reject) => {
        const script = inner.document.createElement("script");
        inner.document.write("<!doctype html><title>search</title>");
        inner.document.close();
        script.src = new URL(url, document.baseURI);
        script.onload = resolve;
        script.onerror = reject;
        inner.document.head.append(script);
      });
    }

    postMessage(data) {
      const inner = this.frame.contentWindow;
      this.ready.then(() => inner.dispatchEvent(new MessageEvent("message", { data })), (error) => this.onerror?.(error));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
