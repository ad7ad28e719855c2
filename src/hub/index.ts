export { cachedPath } from "./cached.js";
export { type HubOptions, hubCacheDirectory, hubEndpoint, type RemoteFile } from "./client.js";
export { type Digest, type Download, type DownloadOptions, downloadFile } from "./download.js";
export { type CachedSnapshot, listCache, removeFromCache } from "./listing.js";
export { type HubName, type ModelName, parseModelName } from "./names.js";
export { type Pulled, type PullOptions, pull } from "./pull.js";
