// The pages as a site: its sidebar leads to every page, and `npm run site` builds them with a search.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describeWith } from './drivers/requirements.js';
import { filesIn, root, run, timeout } from './fixtures/packed.js';

interface Group {
  items: { text: string; link: string }[];
}

/** By path without its ending, as the site has them. */
const pages = filesIn(join(root, 'docs'))
  .filter((file) => file.endsWith('.md'))
  .map((file) => `/docs/${file.replace(/(README)?\.md$/, '')}`);

describe('the sidebar of the site', () => {
  it('leads to every page, under its title', async () => {
    const program = `import config from './.vitepress/config.mjs'; console.log(JSON.stringify(config.themeConfig.sidebar));`;
    const { stdout } = await run(root, process.execPath, '--input-type=module', '--eval', program);
    const items = (JSON.parse(stdout) as Group[]).flatMap((group) => group.items);
    expect(items.map(({ link }) => link).sort()).toEqual([...pages, '/CHANGELOG'].sort());
    expect(items).toContainEqual({ text: 'Work that computes', link: '/docs/threads' });
  });
});

describeWith({ npm: true }, 'the site', () => {
  it(
    'has every page, with links that lead somewhere, and a search that knows them',
    async () => {
      await run(root, 'npm', 'run', 'site');
      const site = join(root, '.vitepress/dist');
      const fileOf = (link: string): string => join(site, `${link.replace(/\/$/, '/index')}.html`);
      expect([...pages, '/CHANGELOG', '/'].filter((page) => !existsSync(fileOf(page)))).toEqual([]);
      for (const page of [...pages, '/']) {
        const html = readFileSync(fileOf(page), 'utf8');
        const links = [...html.matchAll(/<a[^>]* href="(\/[^"#]*)/g)].map(([, link = '']) => link);
        expect(links.filter((link) => !/\.\w+$/.test(link) && !existsSync(fileOf(link)))).toEqual([]);
      }
      const chunks = readdirSync(join(site, 'assets/chunks'));
      const index = chunks.find((name) => name.includes('localSearchIndex'));
      expect(readFileSync(join(site, 'assets/chunks', index ?? ''), 'utf8')).toMatch(/gracefulshutdown/);
    },
    timeout,
  );
});
