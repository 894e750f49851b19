// What users' compilers see: the programs beside this one compile against the declarations of the packed tarball, and what is
// said of a mistake names the way out. `npm run types` compiles them against lib, with one compiler; the project setups do so with
// all library checks, which take most of the time.

import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { pack, root, run, timeout } from '../fixtures/packed.js';

const temp = mkdtempSync(join(tmpdir(), 'types-'));

const preamble = `
import { type BackgroundTasks, task } from 'express-background-tasks';
declare const tasks: BackgroundTasks;
const pad = task('pad', (text: string, width = 3) => text.padStart(width));
declare const wallet: Wallet;
declare class Wallet { readonly owner: string; readonly #amount: number; pay(this: Wallet, amount: number): void; }
declare class Secret { readonly name: string; readonly #value: string; }
declare const { take, add }: { take: { [N in keyof Taken]: (value: Taken[N]) => void }; add: (_to: string, _copies?: number) => void };
interface Taken {
  text: string; date: Date; event: { at: Date }; map: Map<string, number>; set: Set<string>; id: bigint; symbol: symbol;
  done: () => void; url: URL; wallet: Wallet; wallets: Wallet[]; secret: Secret; bytes: Buffer; list: (string | undefined)[];
  promise: Promise<string>;
}
`;

/** Each is a line of a program, and all that the compiler says of it. */
const mistakes: [code: string, ...message: string[]][] = [
  [
    "tasks.enqueue(task('t', take.date), new Date())",
    `Argument of type 'Date' is not assignable to parameter of type '"a Date is not JSON: take a string, and pass date.toISOString()"'.`,
  ],
  [
    "tasks.enqueue(task('t', (_text: string, _at?: Date) => {}), 'a', new Date())",
    `Argument of type 'Date' is not assignable to parameter of type '"a Date is not JSON: take a string, and pass date.toISOString()"'.`,
  ],
  [
    "tasks.enqueue(task('t', take.event), { at: new Date() })",
    `Type 'Date' is not assignable to type '"a Date is not JSON: take a string, and pass date.toISOString()"'.`,
  ],
  [
    "const event: Taken['event'] = { at: new Date() }; tasks.enqueue(task('t', take.event), event)",
    `Argument of type '{ at: Date; }' is not assignable to parameter of type '{ at: "a Date is not JSON: take a string, and pass date.toISOString()"; }'.`,
    `  Types of property 'at' are incompatible.`,
    `    Type 'Date' is not assignable to type '"a Date is not JSON: take a string, and pass date.toISOString()"'.`,
  ],
  [
    "tasks.enqueue(task<[Date]>('t'), new Date())",
    `Argument of type 'Date' is not assignable to parameter of type '"a Date is not JSON: take a string, and pass date.toISOString()"'.`,
  ],
  [
    "tasks.enqueue(task('t', take.map), new Map<string, number>())",
    `Argument of type 'Map<string, number>' is not assignable to parameter of type '"a Map is not JSON: take an array, and pass [...map]"'.`,
  ],
  [
    "tasks.enqueue(task('t', take.set), new Set<string>())",
    `Argument of type 'Set<string>' is not assignable to parameter of type '"a Set is not JSON: take an array, and pass [...set]"'.`,
  ],
  [
    "tasks.enqueue(task('t', take.id), 1n)",
    `Argument of type '1n' is not assignable to parameter of type '"a bigint is not JSON: take a string, and pass bigint.toString()"'.`,
  ],
  [
    "tasks.enqueue(task('t', take.symbol), Symbol.iterator)",
    `Argument of type 'unique symbol' is not assignable to parameter of type '"a symbol is not JSON: take a string"'.`,
  ],
  [
    "tasks.enqueue(task('t', take.done), () => {})",
    `Argument of type '() => void' is not assignable to parameter of type '"a function is not JSON: pass the data that it needs, and call it in the task"'.`,
  ],
  [
    "tasks.enqueue(task('t', take.url), new URL('http://127.0.0.1'))",
    `Argument of type 'URL' is not assignable to parameter of type '"an object with methods or private fields is not JSON: pass a plain object with its data"'.`,
  ],
  [
    "tasks.enqueue(task('t', take.wallet), wallet)",
    `Argument of type 'Wallet' is not assignable to parameter of type '"an object with methods or private fields is not JSON: pass a plain object with its data"'.`,
  ],
  [
    "tasks.enqueue(task('t', take.wallets), [wallet])",
    `Type 'Wallet' is not assignable to type '"an object with methods or private fields is not JSON: pass a plain object with its data"'.`,
  ],
  [
    "tasks.enqueue(task('t', take.secret), new Secret())",
    `Argument of type 'Secret' is not assignable to parameter of type '"an object with methods or private fields is not JSON: pass a plain object with its data"'.`,
  ],
  [
    "tasks.enqueue(task('t', take.bytes), Buffer.alloc(1))",
    `Argument of type 'Buffer<ArrayBuffer>' is not assignable to parameter of type '"bytes are not JSON: take a string, and pass Buffer.from(bytes).toString(\\"base64\\")"'.`,
  ],
  [
    "tasks.enqueue(task('t', take.promise), Promise.resolve('a'))",
    `Argument of type 'Promise<string>' is not assignable to parameter of type '"a promise is not JSON: await it, and pass its value"'.`,
  ],
  ["tasks.enqueue(task('t', take.list), ['a', undefined])", `Type 'undefined' is not assignable to type 'string'.`],
  [
    "tasks.enqueue(task('t', take.text), 1)",
    `Argument of type 'number' is not assignable to parameter of type 'string'.`,
  ],
  [
    "tasks.enqueue(task('t', add), 'a', 'b')",
    `Argument of type 'string' is not assignable to parameter of type 'number'.`,
  ],
  ["tasks.enqueue(pad, 'a', '4')", `Argument of type 'string' is not assignable to parameter of type 'number'.`],
  ["tasks.enqueue(task('t', add))", 'Expected 2-3 arguments, but got 1.'],
  ['tasks.add(add)', 'Expected 2-3 arguments, but got 1.'],
  ['tasks.add(add, 1)', `Argument of type 'number' is not assignable to parameter of type 'string'.`],
  ["tasks.add(pad, 'a', '4')", `Argument of type 'string' is not assignable to parameter of type 'number'.`],
  [
    'tasks.add(wallet.pay, 1)',
    `Argument of type '(this: Wallet, amount: number) => void' is not assignable to parameter of type '(this: void, args_0: number) => void'.`,
    `  The 'this' types of each signature are incompatible.`,
    `    Type 'void' is not assignable to type 'Wallet'.`,
  ],
];

beforeAll(async () => {
  symlinkSync(join(root, 'node_modules'), join(temp, 'node_modules'));
  for (const name of ['api.ts', 'enqueue.ts', 'functions.ts']) cpSync(join(__dirname, name), join(temp, name));
  writeFileSync(join(temp, 'mistakes.ts'), [preamble, ...mistakes.map(([code]) => code)].join('\n'));
  const options = {
    types: ['node'],
    paths: { 'express-background-tasks': [join(temp, 'package/dist/index.d.ts')] },
    noEmit: true,
    noUnusedLocals: false,
    skipLibCheck: true,
  };
  const config = { extends: join(root, 'tsconfig.json'), compilerOptions: options, include: ['*.ts'] };
  writeFileSync(join(temp, 'tsconfig.json'), JSON.stringify(config));
  await run(temp, 'tar', '-xzf', await pack());
}, timeout);

afterAll(() => rmSync(temp, { recursive: true, force: true }));

describe.each(['typescript5', 'typescript', 'typescript7'])('with %s', (compiler) => {
  let output: string[];

  beforeAll(async () => {
    output = (await compile(compiler, '-p', temp)).split(/\n(?! )/);
  }, timeout);

  it('compiles what is right, and nothing that is marked as wrong', () => {
    expect(output.filter((text) => text !== '' && !text.includes('mistakes.ts'))).toEqual([]);
  });

  it.each(mistakes)('says what is wrong with %s', (code, ...message) => {
    const line = preamble.split('\n').length + 1 + mistakes.findIndex(([other]) => other === code);
    expect(output.filter((text) => text.includes(`mistakes.ts(${line},`)).map(withoutPlace)).toEqual([
      message.join('\n'),
    ]);
  });
});

/** Returns what the compiler says. */
async function compile(compiler: string, ...args: string[]): Promise<string> {
  const program = [join(root, 'node_modules', compiler, 'bin/tsc'), '--pretty', 'false', ...args];
  try {
    return (await promisify(execFile)(process.execPath, program, { cwd: temp, timeout })).stdout;
  } catch (error) {
    const { stdout } = error as { stdout?: string };
    if (stdout?.includes(': error TS')) return stdout;
    throw error;
  }
}

function withoutPlace(text: string): string {
  return text.replace(/^.*?: error TS\d+: /, '');
}
