/**
 * The public face of `@syncline/client`: everything an application may use is exported here, and nothing else is.
 */
export {};
