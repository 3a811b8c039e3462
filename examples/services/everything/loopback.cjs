// The server listens on every interface and has no setting for another: here it listens on this machine alone.
const { Server } = require("node:net");
const listen = Server.prototype.listen;
Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, ...(rest.length < 2 ? [port, "127.0.0.1", ...rest] : [port, ...rest]));
};
