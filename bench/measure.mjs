// One benchmark in a process of its own, so that what one leaves in the heap does not slow down the next.

const { default: measure } = await import(`./${process.argv[2]}.mjs`);
process.send(await measure(), () => process.disconnect());
