// The reference in docs/reference, from the doc comments of the public exports: `npm run reference` writes it.

const library = 'express-background-tasks';

/** @type {Partial<import('typedoc').TypeDocOptions & import('typedoc-plugin-markdown').PluginOptions>} */
export default {
  plugin: ['typedoc-plugin-markdown'],
  entryPoints: [
    'lib/index.ts',
    ...['sqlite', 'pg-boss', 'bullmq', 'celery'].map((name) => `lib/drivers/${name}/index.ts`),
    ...['threads', 'testing', 'shutdown', 'bull-board', 'opentelemetry', 'prometheus', 'engine'].map(
      (name) => `lib/${name}/index.ts`,
    ),
  ],
  sortEntryPoints: false,
  out: 'docs/reference',
  readme: 'none',
  router: 'module',
  sort: ['kind', 'source-order'],
  skipErrorChecking: true, // `npm run types` looks for them.
  validation: { notExported: false, invalidLink: false },
  logLevel: 'Warn',
  disableSources: true,
  excludeExternals: true,
  excludePrivate: true,
  expandObjects: true,
  pageTitleTemplates: {
    index: 'Reference',
    module: ({ rawName }) => (rawName === library ? library : `${library}/${rawName}`),
  },
  hidePageHeader: true,
  hideBreadcrumbs: true,
  hideGroupHeadings: true,
  indexFormat: 'table',
  useCodeBlocks: true,
  interfacePropertiesFormat: 'table',
  classPropertiesFormat: 'table',
  typeAliasPropertiesFormat: 'table',
  parametersFormat: 'table',
  tableColumnSettings: { hideModifiers: true, hideInherited: true, hideOverrides: true, hideSources: true },
};
