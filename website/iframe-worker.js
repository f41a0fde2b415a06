// Browsers start no worker for a page that is a file: where the page is one, the search's worker runs in a hidden frame instead. The
// worker looks for this name.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      // the worker posts to whoever started it, and imports scripts one after another
      frame.srcdoc = `<script>
        self.postMessage = data => parent.postMessage({ worker: true, data }, "*")
        self.importScripts = (...urls) => urls.reduce((last, url) => last.then(() => new Promise((done, failed) => {
          const script = document.createElement("script")
          Object.assign(script, { src: url, onload: done, onerror: failed })
          document.head.append(script)
        })), Promise.resolve())
      <\/script><script src="${new URL(url, location)}"><\/script>`
      const loaded = new Promise(done => frame.addEventListener("load", done))
      window.addEventListener("message", event => {
        if (event.source === frame.contentWindow && event.data.worker)
          this.dispatchEvent(new MessageEvent("message", { data: event.data.data }))
      })
      this.postMessage = data => loaded.then(() => frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })))
      // once: a frame that is moved loads again
      const append = () => document.body.append(frame)
      document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", append) : append()
    }
    terminate() {}
  }
}
