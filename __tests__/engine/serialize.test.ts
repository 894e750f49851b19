// What would not survive JSON is refused, with the path to it; results and errors are turned into what can be kept.

import { createContext, runInContext } from 'node:vm';
import * as fc from 'fast-check';
import { serializeArguments, serializeError, serializeResult } from '../../lib/engine/serialize.js';

function refusal(args: readonly unknown[]): unknown {
  try {
    serializeArguments(args, 'send-mail');
  } catch (error) {
    return error;
  }
  return undefined;
}

describe('promise 2: arguments are JSON', () => {
  const good: [string, unknown][] = [
    ['null', null],
    ['text', 'žluťoučký \u0000 \ud800 🐎'],
    ['numbers', [0, -0, { change: -0 }, -1.5, 1e308, 5e-324, Number.MAX_SAFE_INTEGER]],
    ['booleans', [true, false]],
    ['empty ones', ['', [], {}]],
    ['nested ones', { a: [{ b: { c: [[]] } }] }],
    ['strange names of properties', { '': 1, 'a.b': 2, '0': 3, 'a"b': 4, constructor: 5 }],
    ['an own property __proto__', JSON.parse('{"__proto__": 1}')],
    ['an object without a prototype', Object.assign(Object.create(null), { a: 1 })],
    ['an object of another realm', runInContext('({ a: [1, { b: 2 }] })', createContext())],
    ['a property toJSON that is no function', { toJSON: true }],
  ];
  it.each(good)('%s pass', (_, value) => {
    const args = [value, [value]];
    expect(JSON.parse(serializeArguments(args, 'a'))).toEqual(args);
  });

  it('an undefined property passes: to read what is not there gives undefined too', () => {
    expect(serializeArguments([{ a: undefined, b: 1 }], 'a')).toBe('[{"b":1}]');
  });

  it.each([
    ['one', [1, undefined], '[1]'],
    ['several', [1, null, undefined, undefined], '[1,null]'],
    ['all', [undefined, undefined], '[]'],
  ])('undefined at the end of the arguments is as good as no argument: %s', (_, args, text) => {
    expect(serializeArguments(args, 'a')).toBe(text);
  });

  it('the properties of an object keep their order, and the prototype of nothing is changed', () => {
    const text = '[{"b":1,"a":2,"__proto__":{"c":3},"constructor":null}]';
    expect(serializeArguments(JSON.parse(text), 'a')).toBe(text);
  });

  it('the same object in two places is no cycle', () => {
    const shared = { a: [1] };
    expect(refusal([shared, shared, { shared, list: [shared, shared] }])).toBeUndefined();
  });

  const links: unknown[] = [];
  const cycle = { list: links };
  links.push({ back: cycle });
  const list: unknown[] = [];
  list.push(list);
  class Money {
    amount = 1;
  }
  class Amounts extends Array<number> {}
  const hiddenToJson = Object.defineProperty({ a: 1 }, 'toJSON', { value: () => 'gone' });
  const withSymbol = { [Symbol('secret')]: 1 };
  const bad: [string, readonly unknown[], string][] = [
    ['undefined before another argument', [undefined, null], 'args[0] is undefined'],
    ['undefined among the last ones', [1, undefined, 'a', undefined, undefined], 'args[1] is undefined'],
    ['undefined in an array', [[1, undefined]], 'args[0][1] is undefined'],
    ['a hole in an array', [new Array(2)], 'args[0][0] is undefined'],
    ['a function', [() => {}], 'args[0] is a function'],
    ['a method', [{ a: { run() {} } }], 'args[0].a.run is a function'],
    ['a class', [{ Money }], 'args[0].Money is a function'],
    ['a symbol', [Symbol('a')], 'args[0] is a symbol'],
    ['a symbol for a key', [{ a: withSymbol }], 'args[0].a[Symbol(secret)] has a symbol for a key'],
    ['a BigInt', [{ id: 1n }], 'args[0].id is a bigint'],
    ['NaN', [[Number.NaN]], 'args[0][0] is NaN, which JSON turns into null'],
    ['Infinity', [Number.NEGATIVE_INFINITY], 'args[0] is -Infinity, which JSON turns into null'],
    ['a Date', [{ at: new Date() }], 'args[0].at is an instance of Date, not a plain object'],
    ['a Map', [new Map()], 'args[0] is an instance of Map, not a plain object'],
    ['a Buffer', [Buffer.from('a')], 'args[0] is an instance of Buffer, not a plain object'],
    ['an Error', [[new Error('a')]], 'args[0][0] is an instance of Error, not a plain object'],
    ['a promise', [Promise.resolve()], 'args[0] is an instance of Promise, not a plain object'],
    ['an instance of a class', [{ price: new Money() }], 'args[0].price is an instance of Money, not a plain object'],
    ['an instance of no class', [Object.create({})], 'args[0] is an instance of Object, not a plain object'],
    [
      'an instance of what has no constructor',
      [Object.create(Object.create(Object.create(null)))],
      'args[0] is an instance of a class, not a plain object',
    ],
    ['an instance of a class of arrays', [[Amounts.of(1)]], 'args[0][0] is an instance of Amounts, not a plain array'],
    ['a toJSON', [{ a: { toJSON: () => 'gone' } }], 'args[0].a.toJSON is a function'],
    ['one that is not enumerable', [hiddenToJson], 'args[0].toJSON is a function'],
    ['that of an array', [Object.assign([1], { toJSON: () => 'gone' })], 'args[0].toJSON is a function'],
    [
      'a property of an array',
      [Object.assign([1, 2], { total: 3 })],
      'args[0].total is a property of an array, which JSON leaves out',
    ],
    [
      'a match of a RegExp',
      [{ match: /b/.exec('abc') }],
      'args[0].match.index is a property of an array, which JSON leaves out',
    ],
    [
      'a symbol for a key of an array',
      [Object.assign([1], withSymbol)],
      'args[0][Symbol(secret)] has a symbol for a key',
    ],
    ['a cycle of an object', [cycle], 'args[0].list[0].back holds itself'],
    ['a cycle of an array', [1, list], 'args[1][0] holds itself'],
    [
      'names that are no identifiers',
      [{ a: { 'b c': [{ 'd"': () => {} }] } }],
      'args[0].a["b c"][0]["d\\""] is a function',
    ],
    ['the place in the middle', [{ a: { b: [1, { c: 2 }, undefined] } }], 'args[0].a.b[2] is undefined'],
  ];
  it.each(bad)('%s is refused with its path', (_, args, message) => {
    expect(refusal(args)).toMatchObject({
      name: 'BackgroundTasksError',
      code: 'ERR_TASK_NOT_SERIALIZABLE',
      message: `task "send-mail": ${message}`,
    });
  });

  it('the arguments themselves among them are refused', () => {
    const args: unknown[] = [];
    args.push({ args });
    expect(refusal(args)).toMatchObject({ message: expect.stringContaining('args[0].args holds itself') });
  });

  it('what is nested too deeply is refused, not overflowed', () => {
    let deep: unknown = 1;
    for (let level = 0; level < 100_000; level++) deep = [deep];
    expect(refusal([deep])).toMatchObject({
      code: 'ERR_TASK_NOT_SERIALIZABLE',
      message: 'task "send-mail": args: nested too deeply',
      cause: expect.any(RangeError),
    });
  });

  it('what is nested 4000 levels deep passes', () => {
    let deep: unknown = 1;
    for (let level = 0; level < 2000; level++) deep = [{ deep }];
    expect(refusal([deep])).toBeUndefined();
    expect(refusal([[deep]])).toMatchObject({ message: 'task "send-mail": args: nested too deeply' });
  });

  it('what throws when it is read is refused with its path and the cause, also where that is a RangeError', () => {
    const error = new RangeError('not now');
    const args = [
      {
        a: [
          {
            get b() {
              throw error;
            },
          },
        ],
      },
    ];
    expect(refusal(args)).toMatchObject({
      code: 'ERR_TASK_NOT_SERIALIZABLE',
      message: 'task "send-mail": args[0].a[0].b throws when it is read',
      cause: error,
    });
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    expect(refusal([1, proxy])).toMatchObject({
      message: 'task "send-mail": args[1] throws when it is read',
      cause: expect.any(TypeError),
    });
  });

  it('a property is read once: what it returns then is what is checked and sent', () => {
    for (const next of [1n, Number.NaN, () => {}, new Date(0), undefined]) {
      const values: unknown[] = [next, { a: 1 }];
      const getter = {
        get value() {
          return values.pop();
        },
      };
      expect(serializeArguments([getter], 'a')).toBe('[{"value":{"a":1}}]');
    }
    let reads = 0;
    const proxy = new Proxy([0], { get: (target, key) => (key === '0' ? ++reads : Reflect.get(target, key)) });
    expect(serializeArguments([proxy], 'a')).toBe('[[1]]');
    expect(reads).toBe(1);
  });

  it('what is larger than a string can be is refused, with the cause', () => {
    const text = 'x'.repeat(2 ** 26);
    expect(refusal(new Array(9).fill(text))).toMatchObject({
      code: 'ERR_TASK_NOT_SERIALIZABLE',
      message: 'task "send-mail": args cannot be written as JSON: Invalid string length',
      cause: expect.any(RangeError),
    });
  });

  it('whatever passes survives the round trip', () => {
    const anything = fc.anything({
      withBigInt: true,
      withDate: true,
      withMap: true,
      withNullPrototype: true,
      withSparseArray: true,
      withTypedArray: true,
    });
    void fc.assert(
      fc.property(fc.array(anything), (args) => {
        if (refusal(args) === undefined) expect(JSON.parse(serializeArguments(args, 'a'))).toEqual(withoutEnd(args));
      }),
      { numRuns: 1000 },
    );
  });

  it('every JSON value passes', () => {
    void fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(JSON.parse(serializeArguments([value], 'a'))).toEqual([value]);
      }),
    );
  });
});

describe('serializeResult', () => {
  const kept: [unknown, string][] = [
    [null, 'null'],
    [false, 'false'],
    ['\ud800', '"\\ud800"'],
    [{ a: undefined, b: 1 }, '{"b":1}'],
    [[undefined], '[null]'],
    [new Date(0), '"1970-01-01T00:00:00.000Z"'],
  ];
  it.each(kept)('keeps %p', (value, text) => {
    expect(serializeResult(value)).toBe(text);
  });

  const cycle: unknown[] = [];
  cycle.push(cycle);
  const throws = {
    toJSON() {
      throw new Error('no');
    },
  };
  const lost: [string, unknown][] = [
    ['undefined', undefined],
    ['a function', () => {}],
    ['a symbol', Symbol('a')],
    ['a BigInt', 1n],
    ['a cycle', cycle],
    ['what throws', throws],
  ];
  it.each(lost)('does not keep %s', (_, value) => {
    expect(serializeResult(value)).toBeUndefined();
  });
});

describe('serializeError', () => {
  class PaymentError extends Error {
    override name = 'PaymentError';
  }
  const kept: [string, unknown, { name: string; message: string }][] = [
    ['an Error', new Error('boom'), { name: 'Error', message: 'boom' }],
    ['one without a message', new TypeError(''), { name: 'TypeError', message: '' }],
    [
      'one with a secret cause',
      new PaymentError('declined', { cause: 's' }),
      { name: 'PaymentError', message: 'declined' },
    ],
    ['one whose name is a number', Object.assign(new Error('a'), { name: 7 }), { name: '7', message: 'a' }],
    [
      'one whose message is a symbol',
      Object.assign(new Error(), { message: Symbol('m') }),
      { name: 'Error', message: 'Symbol(m)' },
    ],
    [
      'one of another realm',
      runInContext('new RangeError("far")', createContext()),
      { name: 'RangeError', message: 'far' },
    ],
    ['a text', 'text', { name: 'Error', message: 'text' }],
    ['undefined', undefined, { name: 'Error', message: 'undefined' }],
    ['null', null, { name: 'Error', message: 'null' }],
    ['a BigInt', 7n, { name: 'Error', message: '7' }],
    ['a symbol', Symbol('s'), { name: 'Error', message: 'Symbol(s)' }],
    ['an object', { code: 7, inner: new Error('secret') }, { name: 'Error', message: 'an object that is no Error' }],
    ['one with a name and a message', { name: 'Bounced', message: 'b', to: 'x' }, { name: 'Bounced', message: 'b' }],
    ['one with a message', { name: 7, message: 'bounced', to: 'secret' }, { name: 'Error', message: 'bounced' }],
    [
      'one whose message is no text',
      { message: { to: 'secret' } },
      { name: 'Error', message: 'an object that is no Error' },
    ],
    ['an array', [new Error('secret')], { name: 'Error', message: 'an object that is no Error' }],
    ['a function', () => 'secret', { name: 'Error', message: 'a function that is no Error' }],
  ];
  it.each(kept)('of %s', (_, error, expected) => {
    const { stack: _stack, ...kept } = serializeError(error);
    expect(kept).toEqual(expected);
  });

  it('keeps the stack of an error, up to a length', () => {
    function whereItFails(): Error {
      return new Error('x'.repeat(100_000));
    }
    expect(serializeError(new Error('boom')).stack).toMatch(/^Error: boom\n {4}at /);
    expect(serializeError(whereItFails()).stack?.length).toBe(16_000);
    expect(serializeError('text')).not.toHaveProperty('stack');
  });

  it('describes an object that is no error in place of its stack, up to a length', () => {
    expect(serializeError({ code: 7, deep: { a: 1 } }).stack).toBe('{ code: 7, deep: [Object] }');
    const long = Object.fromEntries(Array.from({ length: 1000 }, (_, index) => [`property ${index}`, 'x'.repeat(80)]));
    expect(serializeError(long).stack?.length).toBe(16_000);
  });

  it('of what throws when it is looked at', () => {
    const hostile = Object.defineProperty(new Error(), 'message', {
      get() {
        throw new Error('trap');
      },
    });
    const expected = { name: 'Error', message: 'a value that throws when it is looked at' };
    expect(serializeError(hostile)).toEqual(expected);
  });
});

/** Arguments are as good as not passed where they are undefined, and no others follow. */
function withoutEnd(args: unknown[]): unknown[] {
  return args.slice(0, args.findLastIndex((value) => value !== undefined) + 1);
}
